"""A copy of the whole ledger while it is in use, and a ledger made from one; a copy counts only once it was checked.

copying     what is copied, and what is checked before it is called done
places      where a backup or a ledger may be put, so that nothing is lost by a slip
postgresql  `pg_dump` and `pg_restore`, and the rows counted
replacing   whether the file whose place a backup takes is an older backup of the same ledger
sqlite      a ledger in use, as one file that is whole by itself
"""
