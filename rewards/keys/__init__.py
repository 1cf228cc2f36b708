"""Bearer keys: who may ask, without their secrets being kept.

key_text  a bearer key as text: drawn at random, written, and read again
pepper    the secret in a file of its own that key hashes are made with
ring      bearer keys: made, hashed at rest under a pepper, checked, rotated, revoked
rules     what a key is, which roles and limits there are, and what must hold of one by itself
"""
