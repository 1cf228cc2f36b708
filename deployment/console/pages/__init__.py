"""The pages of the console, one path in each module.

clients     `/clients`: what each client earned; for a member itself alone
holds       `/holds`: what is kept from being paid, placed and released
overview    `/`: how the consortium stands now
periods     `/periods`: what was settled, what the open one would come to, and its moves, asked twice
playground  `/playground`: ask as an application would, and see whose each token is
responses   `/responses`: receipts, their reversal, and the heat map of a text that is kept
rounds      `/rounds`: which round of training is served since when, and who contributed what to it
sign_in     `/sign-in` and `/sign-out`: a bearer key for a session, and the end of it
statements  `/statements`: each client's signed statements to take away
trust       `/trust`: the signed log, proofs to take away, and the audit on demand
"""
