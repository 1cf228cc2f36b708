"""Token ids in, tokens and captured activations out. Does not score.

capture     hooks that remember what single layers saw, inside a `with`
decode      the step loop: prompts join a running batch, tokens come out, rows leave when they are done
row         one response on its way: the prompt, its tokens, and the text that may be shown
rows_cache  keys and values of all running rows, padded on the left
sampling    which token comes next, for all rows of a step at once
"""
