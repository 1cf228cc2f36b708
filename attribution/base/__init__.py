"""The base model: where its weights come from, what its folder claims, and where things are inside it.

files          what a model folder claims, checked before transformers sees it
layers         where things are inside a causal language model, resolved once by name, and how to run only a part of
               it
references     where base models come from
thread_split   linear layers that use every thread for the few rows of a decoding step, where this machine gains by
               it
tokenizer      how much text a token can stand for, where that can be known
wheel_weights  weights that installed packages ship
"""
