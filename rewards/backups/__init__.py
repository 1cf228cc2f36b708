"""A copy of the whole ledger while it is in use, and a ledger made from one; a copy counts only once it was checked.

copying     backup and restore, for either database
sqlite      a file that is whole by itself
postgresql  what PostgreSQL's own tools do, and whether they did
places      where a file or a ledger may be put
"""

from rewards.backups.copying import Copied, backup, restore

__all__ = ["Copied", "backup", "restore"]
