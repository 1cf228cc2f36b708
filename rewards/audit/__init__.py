"""The independent audit: rebuilds hashes, log, balances and settlements from the rows alone, and names what differs.

It shares no code with what writes the books: not with `ledger`, `periods`, `log` or `settlement`. What is shared are
the tables, the connections and signatures (`rewards.signing`).

    settlement/         settlements, computed a second time from the words of the rule alone
    checkpoints         each checkpoint against its note, its signature and the root that the rows lead to
    events              events replayed: registered clients, signing keys, bearer keys
    hashing             how rows are hashed, written a second time
    idempotency_claims  each claim of an `Idempotency-Key` against its own checksum
    receipts            receipts replayed: each hash, each sum, each reversal and every balance anew
    replay              the audit itself: every row once, in order, up to the first that differs
    report              what an audit says: the first row that differs, and what the rows add up to
    sampled_credit      whether each response was measured, or left out, as it had to be
    source              a live ledger, or a copy of a SQLite file, streamed and never written
    tree                the Merkle tree grown anew, beside the nodes that are stored
    write_ahead         whether the -wal beside an SQLite file is there, its own and whole
"""
