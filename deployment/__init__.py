"""The service: `attribution` and `rewards` composed into an OpenAI-compatible endpoint, operator API and exporter.

This is the only package that may import both; only `app`, `cli`, and `replica` with its `worker` and `booking` do so.
Rules of attribution and of money live in those two packages, never here.
"""
