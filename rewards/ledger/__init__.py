"""Booking: each response once, whole, by one writer. Knows no policy and no payout.

claims  which response an application's `Idempotency-Key` stands for
ledger  the only writer of receipts: books each response once, reverses by counter-entry
usage   what an application has generated, by the books, and under which names it stands there
writer  group commit: whatever receipts wait while one transaction is written go into the next one together
"""
