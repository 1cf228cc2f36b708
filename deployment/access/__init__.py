"""Who may call what, how much and how often, and the record of privileged calls.

calls       the audit of privileged calls
gate        who may call what, and how much they may send: bearer key to role to method and path
key_cache   keys that were checked a moment ago
key_checks  keys checked for requests, in threads of their own
limits      how fast and how much each application may ask
"""
