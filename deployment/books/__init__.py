"""What the operator API and the console both do with the books. Knows no route and no page.

books           the ledger and what stands beside it
statement_page  a statement for people and for spreadsheets
"""
