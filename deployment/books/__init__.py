"""What the operator API and the console both do with the books. Knows no route and no page.

books           the ledger and what stands beside it
holds           holds listed, placed and released
log             checkpoints and public keys of the signed log, and proofs for whoever may see what they prove
periods         closed periods as each may see them, previews, and their moves
receipts        receipts of responses as they were booked, and their reversal
statement_page  a statement as a page to print, and its money as CSV
statements      statements listed, issued, and as files
"""
