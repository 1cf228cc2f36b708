"""`protoken exporter`: the ledger as Prometheus series, apart from the service."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from deployment.cli.options import AS_SET, Config, LedgerUrl, setting_option
from deployment.cli.output import say
from deployment.metrics.exporter import Exporter
from deployment.settings import Settings


def exporter(
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; no key is asked for there.")] = "127.0.0.1",
    port: Annotated[int, setting_option("metrics_port", "--port", "Port to listen on")] = AS_SET,
    policy: Annotated[
        Path | None, setting_option("policy", "--policy", "Policy file (YAML), for previews of the open period")
    ] = AS_SET,
) -> None:
    """Export the ledger as Prometheus series, apart from the service, until interrupted."""
    port = port or Settings.model_fields["metrics_port"].default  # 0 is for the service: that it starts none itself
    running = Exporter(ledger, host, port, policy)
    say(f"metrics on http://{host}:{port}/metrics")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    running.close()
