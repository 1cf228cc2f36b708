"""Bearer keys: who may ask, without their secrets being kept.

pepper  the pepper: 32 random bytes in a file of their own, without which the hashes in the database verify no key
ring    bearer keys: made, hashed at rest under a pepper, checked, rotated, revoked
rules   what a key is, and what must hold of one by itself
"""
