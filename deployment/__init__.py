"""The service: `attribution` and `rewards` composed into an OpenAI-compatible endpoint, operator API and exporter.

This is the only package that may import both; only `app`, `cli`, and `replica` with its `worker` and `booking` do so.
Rules of attribution and of money live in those two packages, never here.
"""

import os

# Ray reads this when it is imported, which must be later: the Ray that `app` starts then listens on loopback alone, and
# so do its metrics. It is for one machine in any case.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
