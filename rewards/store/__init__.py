"""The ledger's database: its tables, how it is opened and kept whole, and what every query needs.

calibrations  how right a model's shares are, as somebody measured it and had it written
checksums     checksums of what changes in place: a damaged value shows
clients       which clients may be credited, registered once and for ever
continuity    whether a ledger has only grown, looked at again and again
database      the ledger's database, SQLite or PostgreSQL: made, migrated, opened, and its transactions
engines       connections whose transaction reads one moment, or is alone in writing
events        the book of what happened besides receipts: who did what, when, and what came of it
presence      whether the ledger is still the one that was opened
publications  which bundle answers for a consortium, and from when
queries       sums over receipts and entries, and lists cut to what a statement takes
reasons       why something was done: what a reason must be
receipts      receipts and entries as they were booked, and how they are read; `Receipt` is in `rewards.credit`
schema        the schema: made, told from another version's, migrated
sums          sums that no 64 bits overflow
tables        the tables, and the constraints that a database holds by itself
url           a ledger's URL, taken apart and shown
"""
