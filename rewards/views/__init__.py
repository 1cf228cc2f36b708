"""What is read of the books for people, pages and scrapes. Writes nothing.

contribution   figures added up once and then only caught up, for pages and scrapes
ledger_health  what was booked last, what is sealed and what is not
newest_first   the newest receipts and entries first, in pages, and which responses were reversed
oldest_first   pages of receipts and entries, filtered, each beginning after the last row of the one before
ownership      what in the books is a client's own
page           a page of rows, and where the next one begins
selection      the receipts of a period or of all time, and what they come to
standing       how contribution stands after one receipt, immutable
"""
