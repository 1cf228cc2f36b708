"""`protoken ledger migrate`: an older version's ledger brought to this version's schema, when somebody says so."""

import typer

from deployment.cli.options import Json, LedgerUrl
from deployment.cli.output import print_json
from deployment.settings import ledger_url
from rewards import Ledger
from rewards.database import shown_url

__all__ = ["migrate"]


def migrate(ledger: LedgerUrl = None, as_json: Json = False) -> None:
    """Bring a ledger that an older protoken made to this one's schema; stop the service and keep a backup before.

    All of it or nothing: whatever fails leaves the ledger as it was. No other command migrates.
    """
    url = ledger_url(ledger)
    before, now = Ledger.migrate(url)
    if as_json:
        print_json({"ledger": shown_url(url), "before": before, "schema": now})
    elif before == now:
        typer.echo(f"{shown_url(url)} is of schema {now} already; nothing was changed")
    else:
        typer.echo(f"{shown_url(url)} is of schema {now} now; it was of {before}")
