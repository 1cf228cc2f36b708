"""The service: `attribution` and `rewards` composed into an OpenAI-compatible endpoint, operator API and exporter.

This is the only package that may import both; which of its modules do is a list in tests/test_architecture.py. Rules of
attribution and of money live in those two packages, never here.

    access/     who may call what, how much and how often, and the record of privileged calls
    api/        the operator API under `/api/v1`
    app/        the service put together: one HTTP surface, as a Serve deployment over the replicas
    books/      what the operator API and the console both do with the books
    cli/        the `protoken` command
    cluster/    what Ray does not do by itself on a machine; the service on many machines is in `app.cluster`
    console/    the pages for operators and members, over the same rules as the operator API
    gateway/    the OpenAI-compatible endpoint: requests in, jobs to the replicas, answers out
    health/     whether what the service stands on is still there, and what it says of that
    http/       HTTP as every caller meets it: one shape for failures, HEAD, other origins
    members/    what a member signs of its updates, and what holds of that in a bundle
    metrics/    what Prometheus is told: the catalogue of series, the exporter, the replicas' series
    replica/    a replica: one model at a time, its worker, and the way from generated tokens to booked credit
    retention/  texts of responses on disk, for retries and for the console, and for how long
    schemas/    what crosses the wire as pydantic models; the OpenAPI document is made of them
    settings/   every interval, limit and default that can be set, and where settings come from
    spool/      a replica's local, fsynced queue of what is not booked yet
    errors      the failures of the service, one small tree, and the body an application sees for each
"""

import os

# Ray reads this when it is imported, which must be later: the Ray that `app` starts then listens on loopback alone, and
# so do its metrics. It is for one machine in any case.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
