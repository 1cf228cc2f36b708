"""Commands over the books: they need the ledger's database or a file, and no model.

backup     `protoken ledger backup | restore | migrate`
hold       `protoken hold place | release | list`
keys       `protoken keys create | rotate | revoke | list`
ledger     `protoken ledger balances | entries | reverse`
log        `protoken ledger seal | checkpoint | proof | check-proof | verify`
period     `protoken period list | preview | close | dispute | finalise | pay`
signing    the signing key on disk: made, registered in the ledger, replaced
statement  `protoken statement issue | show | verify`
"""
