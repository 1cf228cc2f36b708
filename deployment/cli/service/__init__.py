"""Commands that start the service or show it.

dashboards       `protoken dashboards`: the Grafana boards as files
demo             `protoken demo`: from four clients' training to payouts, in one sitting
demo_folder      the folder of `protoken demo`: known by its stamp, cleared, one demo's at a time
exporter         `protoken exporter`: the ledger as Prometheus series, apart from the service
serve            `protoken serve`: the service, until it is interrupted
service_process  a service in a process of its own, for as long as a `with` lasts
"""
