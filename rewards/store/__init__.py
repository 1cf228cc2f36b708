"""The ledger's database: its tables, how it is opened and kept whole, and what every query needs.

checksums   checksums of what changes in place and so stands in no log: a damaged value shows
clients     which clients may be credited: registered once, for ever, in the book of events
continuity  that a ledger only grows, looked at again and again by whoever lives from it
database    the ledger's database, SQLite or PostgreSQL: made, migrated, opened, and its transactions
engines     connections to SQLite and PostgreSQL, such that a transaction reads one moment or is alone in writing
events      the book of what happened besides receipts: who did what, when, and what came of it
presence    whether the ledger is still the one that was opened
queries     sums over receipts and entries, and where they end; in a transaction that somebody else opened
receipts    receipts and their entries as they stand in the books, and how they are read
schema      the schema of a ledger's database
sums        sums that do not overflow, whatever receipts hold
tables      the ledger's tables and the constraints a database can hold by itself
url         the URL of a ledger: a SQLite file, or a database of PostgreSQL. Opens nothing
"""
