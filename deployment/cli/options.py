"""Options that several nouns of the command line share."""

from pathlib import Path
from typing import Annotated

import typer

from rewards.moments import date_of

ACTOR = "command line"
"""How the ledger's events name whoever has a shell on the machine."""

LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        help="Ledger, sqlite:///FILE or postgresql://USER@HOST/DATABASE; "
        "else PROTOKEN_LEDGER, else sqlite:///var/ledger.db.",
    ),
]
PepperFile = Annotated[
    Path | None,
    typer.Option(
        "--pepper-file",
        help="Secret that keys are hashed with, as in the service's settings; else PROTOKEN_PEPPER_FILE, "
        "else beside the ledger.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def date(microseconds: int | None) -> str:
    """A moment of the ledger as people read it, in UTC; a dash where there is none."""
    if microseconds is None:
        return "–"
    return f"{date_of(microseconds):%Y-%m-%d %H:%M:%S}"
