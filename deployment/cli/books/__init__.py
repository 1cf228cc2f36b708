"""Commands over the books: they need the ledger's database or a file, and no model.

backup        `protoken ledger backup | restore | migrate`
check_proof   `protoken ledger check-proof`
entries       `protoken ledger balances | entries | reverse`
explain       `protoken explain`
hold          `protoken hold place | release | list`
keys          `protoken keys create | rotate | revoke | list`
ledger        `protoken ledger`: its commands, each loaded when it is called
log           `protoken ledger seal | checkpoint | proof | bundle-proof`
member        `protoken member keygen | sign | check`
payouts       `protoken period payouts`: what a final period pays, as files to pay by
period        `protoken period list | preview | close | dispute | finalise | pay`
statement     `protoken statement issue | show | verify`
trace         `protoken trace`: booked responses by their ids; texts anew with the model, in `models`
trusted_keys  what a member or an auditor knows from elsewhere: public keys, and a checkpoint held from earlier
verify        `protoken ledger verify`: all of the books rebuilt from their rows, as an auditor would
"""
