"""`protoken keys create | list | revoke`: who may call the service."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from deployment.cli.options import Json, LedgerUrl, date
from deployment.cli.output import print_json, print_table
from deployment.settings import ledger_url
from rewards import KeyRing, Ledger

__all__ = ["app"]

app = typer.Typer(help="Bearer keys of applications and operators.", no_args_is_help=True)


class Role(StrEnum):
    """What a key may do: applications call /v1, operators /api/v1."""

    APPLICATION = "application"
    OPERATOR = "operator"


@app.command()
def create(
    role: Annotated[Role, typer.Option("--role", help="application: /v1; operator: /api/v1.")],
    label: Annotated[str, typer.Option("--label", help="What the key is for.")] = "unnamed",
    ledger: LedgerUrl = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept. Makes the ledger where there is none yet."""
    url = ledger_url(ledger)
    Ledger.prepare(url)
    key = KeyRing(url).create(role.value, label)
    if as_json:
        print_json({"key": key, "role": role.value, "label": label})
    else:
        typer.echo(key)  # nothing else on stdout, so that a shell can take it


@app.command("list")
def list_(ledger: LedgerUrl = None, as_json: Json = False) -> None:
    """List the keys, without their secrets."""
    keys = KeyRing(ledger_url(ledger)).list()
    if as_json:
        print_json([asdict(key) for key in keys])
        return
    rows = [(key.key_id, key.role, key.label, date(key.created_at_us), date(key.revoked_at_us)) for key in keys]
    print_table("keys", ("key", "role", "label", "created", "revoked"), rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, the middle part of ptk_ID_SECRET.")],
    ledger: LedgerUrl = None,
) -> None:
    """Refuse a key from now on."""
    KeyRing(ledger_url(ledger)).revoke(key_id)
    typer.echo(f"revoked {key_id}")
