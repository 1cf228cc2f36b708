"""`make bench-gpu`: decoding, scoring and both at once on a GPU, on random weights of an 8B model that are made there.

model     random weights and updates, made on the device
decoding  tokens a second at so many rows
scoring   seconds and memory of `credit` at so many positions, and what a dtype does to scores
mixture   times between the steps of streams while responses are scored
vllm      tokens a second of a vLLM on the same device, alone and beside a scorer
"""
