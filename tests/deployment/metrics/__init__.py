"""Tests of the metrics: the catalogue, the exporter, the replica series, rules and dashboards."""
