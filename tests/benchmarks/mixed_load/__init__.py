"""`make bench-mixed`: minutes of every kind of request, replicas killed, a round published, and the books after.

requests    what callers ask for, and what each answer must be
callers     applications that ask, leave, ask again under one Idempotency-Key, and note what they saw
killing     processes that are killed by their id, and the memory of all that serve
publishing  a round that is published in the middle, and taken back, and which round each receipt may name
verdict     the ledger held against what was seen
"""
