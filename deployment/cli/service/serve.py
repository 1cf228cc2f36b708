"""`protoken serve`: the service, until it is interrupted."""

from pathlib import Path
from typing import Annotated

import typer

from deployment.app import launch
from deployment.cli.options import AS_SET, Config, LedgerUrl
from deployment.cli.output import say
from deployment.settings import load_settings, url_without_secrets


def serve(
    config: Config = None,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Folder of the consortium's bundle.")] = None,
    ledger: LedgerUrl = AS_SET,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; loopback by default.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the HTTP API.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="Port of the exporter; 0 for none.")
    ] = None,
) -> None:
    """Serve the consortium's model over HTTP until interrupted; every response is booked before it ends."""
    settings = load_settings(config, bundle=bundle, ledger=ledger, host=host, port=port, metrics_port=metrics_port)
    say(
        f"starting: bundle {', '.join(map(str, settings.bundles))}, ledger {url_without_secrets(settings.ledger)}",
        soft_wrap=True,
    )
    launch.run(settings, lambda: _announce(f"http://{settings.host}:{settings.port}"))


def _announce(address: str) -> None:
    say(f"API on {address}/v1; stop with Ctrl-C", soft_wrap=True)
    say(f"console on {address}/console: sign in with a key of `protoken keys create`", soft_wrap=True)
