"""Whether the service stands on what it stood on when it started, and what it says of that.

parts   what a service stands on besides its ledger
places  what a service keeps beside its ledger: the folder of its spool, and its signing key
watch   watches what a service stands on, so that it says what is wrong instead of going on into nothing
"""
