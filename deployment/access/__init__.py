"""Who may call what, how much and how often, and the record of privileged calls.

audit_trail   privileged calls as events: who called what, with what outcome
concurrency   how many responses an application has under way at once
gate          what stands before every route: a key of the right role, and a body that is not too large
key_cache     keys that were checked a moment ago, so that not every request asks the database
key_verifier  keys checked in threads of their own, which neither guessers nor writers use up
limits        requests a minute, responses at once, and tokens in its life, of each application
permissions   which role may call what, and whose figures a key sees; which roles there are is in `rewards.keys.rules`
"""
