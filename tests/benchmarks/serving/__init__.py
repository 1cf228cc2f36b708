"""`make bench-serving`: our service beside `transformers serve`, over HTTP, on the same weights.

prompts   what is asked: rows of numbers, which go on for as long as one likes
client    streams of OpenAI's client, and when each piece of text came
loads     what a number of streams came to: tokens a second, times between tokens
ours      our service in a process of its own, its ledger in a folder of its own
peer      `transformers serve` in an environment of its own, made once
record    what was measured, and the names of the servers
engine    the batch alone, driven by one thread of one process
rounds    who is measured when: one after another, again and again, never two at once
outcome   figures and tables, from what was measured
"""
