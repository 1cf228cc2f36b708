"""The local, fsynced queue of a replica: what was generated but is not in the ledger yet, safe from a crash.

Each process writes a file of its own and holds a lock on it for life; the kernel lets go of the lock when the process
dies, and whoever starts next, or lives still, adopts the file. `lines` is what a file says, `files` how it is kept on
disk, `spool` the queue itself. Knows no ledger, no model and no HTTP.
"""

from deployment.spool.lines import Record
from deployment.spool.spool import Adopted, Spool

__all__ = ["Adopted", "Record", "Spool"]
