"""Options that several nouns of the command line share."""

from datetime import UTC, datetime
from typing import Annotated

import typer

__all__ = ["Json", "LedgerUrl", "date"]

LedgerUrl = Annotated[
    str | None,
    typer.Option("--ledger", help="Ledger, sqlite:///FILE; else PROTOKEN_LEDGER, else sqlite:///var/ledger.db."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def date(microseconds: int | None) -> str:
    """A moment of the ledger as people read it, in UTC; a dash where there is none."""
    if microseconds is None:
        return "–"
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
