"""Credit that is exact, a ledger that forgets nothing, and settlements that sum to the pool.

What comes in is plain: a response id, a number of generated tokens, and shares of clients that sum to 1 with the base
share. `credit.receipt_amounts` turns them into integer micro-credits, one token = 1 000 000, that sum exactly; floats
end there. `ledger.ledger.Ledger` books a `Receipt`: whole or not at all, once per response id, durable before it
returns. Nothing booked is ever changed or deleted; the database itself refuses. `periods.transitions.close` settles
what was booked since the last close by a `Policy`: payouts are integers that sum to the pool, the same credit and
policy give the same bytes, and of two closers one wins. `keys.ring.KeyRing` keeps who may ask, without keeping their
secrets.

This package knows nothing of models, attribution, HTTP or the command line. Everything it raises is a `RewardsError`.

    audit/             the independent audit: everything rebuilt from the rows alone; what differs is named
    backups/           a copy of the whole ledger while it is in use, and a ledger made from one
    files/             files of private content, and documents read so that they have one meaning
    keys/              bearer keys: who may ask, without their secrets being kept
    ledger/            booking: each response once, whole, by one writer
    log/               the Merkle log over the books: what was booked stays as it was, and anybody can check it
    periods/           periods: one after the other without gap, each closed once, disputed or not, made final, paid
    sampled_credit/    which responses are measured where not all are: nobody can choose it, anybody can check it
    settlement/        from a period's credit to payouts in whole minor units, by a policy
    signing/           Ed25519 keys, and what is signed by them
    store/             the ledger's database: its tables, how it is opened and kept whole, and what every query needs
    views/             what is read of the books for people, pages and scrapes
    credit             integer micro-credits: exact splits, `Receipt` with its fields, and the bytes it is hashed by
    errors             the exceptions of this package, one small tree
    largest_remainder  exact division of whole units, and who gets the one that is left over
    moments            the ledger's own time, and stamps of wrong clocks
    money              an amount of money as text, and the currencies of ISO 4217
    statements         statements: what a client was told of a final period, signed and provable
"""
