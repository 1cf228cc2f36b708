"""A copy of the whole ledger while it is in use, and a ledger made from one; a copy counts only once it was checked.

copying     backup and restore: where they may go, what is copied, what is checked before it is called done
places      where a backup or a ledger may be put, so that nothing is lost by a slip
postgresql  a ledger on PostgreSQL, dumped and loaded by the server's own tools, and the dump counted
sqlite      a ledger on SQLite into one file that is whole by itself, while others write
"""
