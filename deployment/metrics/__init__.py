"""What Prometheus is told: a catalogue of every series, money from the ledger, and how each replica fares.

accept     which of the exporter's two formats a scraper would rather have, by its `Accept` (RFC 9110, section
           12.5.1)
catalogue  every series there is, once: name, kind, unit, labels, buckets and help
exporter   the exporter: `/metrics` of the ledger on a port of its own, apart from the service's proxy
families   values by series and labels, as the metric families of prometheus_client that the catalogue describes
ledger     the ledger as Prometheus series
preview    what the open period would pay if it were closed now, computed beside the scrapes, as it may take long
reading    what is read of the ledger for one scrape, each thing once
replica    how a replica fares, as Prometheus series
"""
