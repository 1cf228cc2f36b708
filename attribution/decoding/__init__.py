"""Token ids in, tokens and captured activations out. Does not score.

capture     hooks that remember what single layers saw, inside a `with`
decode      the step loop: prompts join a running batch, tokens come out one step at a time, rows leave when they
            are done
row         one response on its way
rows_cache  keys and values of all running rows together, padded on the left
"""
