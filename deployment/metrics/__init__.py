"""What Prometheus is told: a catalogue of every series, money from the ledger, and how each replica fares.

accept       which of the two formats a scraper would rather have (RFC 9110, section 12.5.1)
catalogue    every series there is, once: name, kind, unit, labels, buckets and help
dashboards/  Grafana's two boards as code, over the catalogue of series
exporter     `/metrics` of the ledger on a port of its own
ledger       every series of the catalogue that the ledger feeds
preview      what the open period would pay now, computed beside the scrapes
replica      every series of the catalogue that a replica feeds
rounds       what published bundles record of their rounds, each read once from where it lies
snapshot     what is read of the ledger for one scrape, each thing once
values       values by series and labels, as prometheus_client has them
"""
