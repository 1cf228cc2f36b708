"""What the operator API and the console both do with the books. Knows no route and no page.

books           the ledger and what stands beside it
statement_page  a statement as a page to print, and its money as CSV
"""
