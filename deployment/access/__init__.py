"""Who may call what, how much and how often, and the record of privileged calls.

calls       privileged calls as events: who called what, with what outcome
gate        who may call what, and how much they may send: bearer key to role to method and path
key_cache   keys that were checked a moment ago, so that not every request asks the database
key_checks  keys checked in threads of their own, which neither guessers nor writers use up
limits      requests a minute, and tokens in its life, of each application
"""
