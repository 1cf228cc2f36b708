"""The console: pages for operators and members, rendered here, over the same rules as the operator API.

charts/       figures as pictures
figures/      the figures that pages show, and who may see them
pages/        the pages of the console, one path in each module
app           the console as a FastAPI app of its own, mounted at `/console`
dependencies  the books, for whatever page asks for them
errors        whatever goes wrong, as a page with the status it has
gate          who may see which page: role to method and path, by session
moves         what a form asks to be done, where it was confirmed; else why it was not
rendering     pages from templates: what every page knows, and how figures are written
sessions      signed cookies that name a key, and form tokens; nothing is stored
"""
