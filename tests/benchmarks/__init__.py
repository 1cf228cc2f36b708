"""Benchmarks: figures with targets, each a ratio of two things measured in one run. Never part of `make test`."""
