"""What the operator API and the console both do with the books. Knows no route and no page.

accounts          who is paid on which account, from a file that stays with whoever pays
books             the ledger and what stands beside it
calibrations      how right the shares of models are, as it was measured and booked
explanations      a client's payout explained, for whoever may see it
holds             holds listed, placed and released
log               checkpoints and public keys of the signed log, and proofs for whoever may see what they prove
payouts           what a final period pays, as one file to pay by
periods           closed periods as each may see them, previews, and their moves
receipts          receipts of responses as they were booked, and their reversal
rounds            which round of training was published when, and what its bundle records
sepa              what a final period pays as a SEPA credit transfer, for a bank
sepa_letters      text in the letters that SEPA carries
settlement_table  a settlement as a table that sums to the pool, of whole settlements and of own lines
statement_page    a statement as a page to print, whose sentences are of `statement_terms`, and its money as CSV
statement_terms   how the period of a statement was settled, in words
statements        statements listed, issued, and as files
traces            who earned most of some responses, by their booked credit
"""
