"""The local, fsynced queue of a replica: what was generated but is not in the ledger yet, safe from a crash.

Each process writes a file of its own and holds a lock on it for life; the kernel lets go of the lock when the process
dies, and whoever starts next, or lives still, adopts the file. `lines` is what a file says, `files` how it is kept on
disk, `spool` the queue itself. Knows no ledger, no model and no HTTP.

    backlog  what waits for the ledger, by application
    files    files that survive a crash, and locks that do not
    lines    one line per write, with its checksum, replayed to what is live
    records  receipts and the progress of streams, as what a spool holds and back
    spool    the queue itself: appended durably, forgotten once booked, taken over from the dead
    wiper    token ids overwritten on the disk once they are not needed
"""
