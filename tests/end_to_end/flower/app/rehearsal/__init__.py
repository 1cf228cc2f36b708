"""A Flower app that trains a low-rank update in NumPy, and records who sent what."""
