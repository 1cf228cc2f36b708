"""Sampled credit: which responses are measured, by a secret that the books commit to before and reveal after.

keys  the keys of sampling: made, committed to, in force, revealed
rule  which responses are measured: a keyed hash of the id, held against a fraction
"""
