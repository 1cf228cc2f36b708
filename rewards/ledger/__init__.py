"""Booking: each response once, whole, by one writer. Knows no policy and no payout.

idempotency_claims  which response an application's `Idempotency-Key` stands for
ledger              the only writer of receipts: books each response once, reverses by counter-entry
usage               the tokens that an application has generated, by the books
writer              group commit: receipts that wait together are written together
"""
