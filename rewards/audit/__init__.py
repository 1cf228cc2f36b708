"""The independent audit: rebuilds hashes, log, balances and settlements from the rows alone, and names what differs.

It shares no code with what writes the books: not with `ledger`, `periods`, `log` or `settlement`. What is shared are
the tables, the connections, signatures (`rewards.signing`) and the settlement rule, which is pure.

    settlement/  settlements, computed a second time from the words of the rule alone
    checkpoints  checkpoints: each row against its note, its signature, the one before it, and the root that the rows
                 lead to
    claims       claims: each row against its own checksum, for claims end and so stand in no log
    events       events, replayed in order, and the state they leave behind
    hashing      how rows are hashed, written a second time and on purpose
    receipts     receipts and their entries, replayed in order
    replay       the audit: every row read once in order, everything computed anew, and the first row that differs named
    report       what an audit says: the first row that differs, or none, and what the rows add up to
    source       where an audit reads: a live ledger, or a copy of a SQLite file that nobody can write
    tree         the Merkle tree, grown anew from the leaves of the rows, beside the nodes that are stored
"""
