"""Token ids in, tokens and captured activations out. Does not score.

capture         hooks that remember what single layers saw, inside a `with`
decode          the step loop: prompts join a running batch, tokens come out, rows leave when they are done
forward         one pass of the next tokens of several rows through the network
prompt_limits   how long prompts may be, and which tokens there are
row             one response on its way: the prompt, its tokens, and the text that may be shown
rows_attention  attention of such a pass, row by row, as transformers' models call it
rows_cache      keys and values of all rows, each in a slot of its own, written in place
sampling        which token comes next, for all rows of a step at once
stop_strings    where a response is cut, and how much of it may be shown until then
taps            what is remembered of a response while it is decoded, for scoring it afterwards
window          one pass over some rows: where each token goes, its position, and what it may see
"""
