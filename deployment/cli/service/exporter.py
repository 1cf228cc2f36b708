"""`protoken exporter`: the ledger as Prometheus series, apart from the service."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from deployment.cli.options import LedgerUrl
from deployment.cli.output import say
from deployment.metrics.exporter import Exporter
from deployment.settings import ledger_url


def exporter(
    ledger: LedgerUrl = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 9464,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file (YAML), for previews of the open period.")
    ] = None,
) -> None:
    """Export the ledger as Prometheus series, apart from the service, until interrupted."""
    running = Exporter(ledger_url(ledger), host, port, policy)
    say(f"metrics on http://{host}:{port}/metrics")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    running.close()
