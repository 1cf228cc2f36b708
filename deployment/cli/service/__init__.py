"""Commands that start the service or show it.

apart        a service in a process of its own, up for as long as a `with` lasts, which leaves no process behind
dashboards   `protoken dashboards`: the Grafana boards as files
demo         `protoken demo`: the whole way, from four clients' training to payouts, on a real model over HTTP, in
             one sitting
demo_folder  the folder of `protoken demo`
serve        `protoken serve` and `protoken exporter`
"""
