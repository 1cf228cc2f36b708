"""The console: pages for operators and members, rendered here, over the same rules as the operator API.

charts/    figures as pictures
figures/   the figures that pages show, and who may see them
pages/     the pages of the console, one path in each module
app        the console as a FastAPI app of its own, mounted at `/console`
errors     whatever goes wrong in the console, as a page in its layout with the status it has
gate       who may see which page of the console
rendering  pages from templates: what every page knows, how figures are written, and who looks
sessions   sessions of the console
"""
