"""The pages of the console, one path in each module.

clients     `/clients`: what each client earned, and one client by itself; for a member itself alone
holds       `/holds`: what is not to be paid for the time being, placed and released
overview    `/`: how the consortium stands now
periods     `/periods`: what was settled, what the open period would come to, and its moves, each of them asked
            twice
playground  `/playground`: ask the model as an application would, and see whose each token of the answer is
responses   `/responses`: receipts of responses, one and many, their reversal, and the heat map of a text where it
            is kept
sign_in     `/sign-in` and `/sign-out`: a bearer key for a session, and the end of it
statements  `/statements`: each client's signed statements to take away, as the operator API gives them, byte for
            byte
trust       `/trust`: the signed log, what was kept of it against what it is now, proofs to take away, and the audit
            on demand
"""
