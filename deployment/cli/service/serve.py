"""`protoken serve` and `protoken exporter`: the service, and its ledger as Prometheus series."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from deployment.cli.options import LedgerUrl
from deployment.cli.output import say
from deployment.metrics.exporter import Exporter
from deployment.settings import ledger_url, load_settings

__all__ = ["exporter", "serve"]


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file (YAML), see configs/serve.yaml.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Folder of the consortium's bundle.")] = None,
    ledger: LedgerUrl = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; loopback by default.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the HTTP API.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="Port of the exporter; 0 for none.")
    ] = None,
) -> None:
    """Serve the consortium's model over HTTP until interrupted; every response is booked before it ends."""
    from deployment.app import serving  # noqa: PLC0415 - Ray takes seconds to import and no other command needs it

    settings = load_settings(config, bundle=bundle, ledger=ledger, host=host, port=port, metrics_port=metrics_port)
    say(f"starting: bundle {settings.bundle}, ledger {settings.ledger}")
    address = f"http://{settings.host}:{settings.port}"
    say(f"API on {address}/v1 once GET /health answers; stop with Ctrl-C", soft_wrap=True)
    say(f"console on {address}/console: sign in with a key of `protoken keys create`", soft_wrap=True)
    serving.run(settings)


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
