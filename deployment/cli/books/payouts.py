"""`protoken period payouts`: what a final period pays, as files to pay by."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from attribution.errors import DestinationError
from attribution.files.destinations import is_same_place, prepare_folder, require_own_file
from deployment.books.payouts import TransferFile, payout_file
from deployment.books.settlement_table import names_in
from deployment.cli.extras import require_extra
from deployment.cli.options import AS_SET, Config, LedgerUrl, file_to_write
from deployment.cli.output import say
from rewards import periods
from rewards.errors import PeriodError
from rewards.files.private_files import draft_of, put
from rewards.ledger.ledger import Ledger
from rewards.money import write_readable

_Table = Annotated[
    Path | None,
    typer.Option("--out", parser=file_to_write, metavar="FILE", help="The file of all members and the commons (CSV)."),
]
_Transfer = Annotated[
    Path | None,
    typer.Option(
        "--sepa",
        parser=file_to_write,
        metavar="FILE",
        help="The file for a bank (SEPA credit transfer, pain.001), to be read by its owner alone.",
    ),
]


def payouts(
    period: Annotated[str, typer.Argument(metavar="PERIOD", help="Name of a final period, such as 2026-11.")],
    out: _Table = None,
    sepa: _Transfer = None,
    accounts: Annotated[
        Path | None, typer.Option("--accounts", help="Of --sepa: debtor and payees with name and IBAN (YAML).")
    ] = None,
    execute_on: Annotated[
        datetime | None,
        typer.Option("--execute-on", formats=["%Y-%m-%d"], help="Of --sepa: the day on which the bank is to pay."),
    ] = None,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
) -> None:
    """Write what a final period pays: to every member and to the commons as CSV, or as a transfer for a bank.

    The same period, accounts and day make the same transfer to the byte, whose ids a bank takes once.
    """
    _require_whole(out, sepa, accounts, execute_on)
    if sepa is not None:
        require_extra("sepa", "`protoken period payouts --sepa`")
    book = Ledger(ledger)
    closed = periods.get(book, period)
    if closed is None or closed.final is None:
        state = "not closed" if closed is None else closed.state
        raise PeriodError(f"period {period!r} is {state}: what it pays is certain only once it is final")
    contents: dict[Path, bytes] = {}
    if out is not None:
        contents[out] = payout_file(closed, names_in(book))
    transfer = None
    if sepa is not None and accounts is not None and execute_on is not None:
        transfer = _transfer(closed, accounts, execute_on)
        contents[sepa] = transfer.content
    for path, content in contents.items():  # all of them before the first is written
        require_own_file(path, partial(bytes.__eq__, content), f"the payouts of period {period!r} as they are now")
        prepare_folder(path.parent)
    for path, content in contents.items():
        _write_private(path, content)
        typer.echo(path)
    if transfer is not None:
        say(f"{len(transfer.cents)} transfers of {_money(transfer.cents)} in all")
        if transfer.staying:
            say(f"{_money(transfer.staying)} stay with the debtor: {', '.join(transfer.staying)}", soft_wrap=True)


def _require_whole(out: Path | None, sepa: Path | None, accounts: Path | None, execute_on: datetime | None) -> None:
    """Refuse to write nothing, and a transfer without accounts or without a day."""
    if out is None and sepa is None:
        raise typer.BadParameter("give --out, --sepa or both")
    if out is not None and sepa is not None and is_same_place(out, sepa):
        raise typer.BadParameter("--out and --sepa are two files")
    with_sepa = (accounts is not None, execute_on is not None)
    if with_sepa != (sepa is not None, sepa is not None):
        raise typer.BadParameter("--sepa, --accounts and --execute-on go together")


def _transfer(closed: periods.Period, accounts: Path, execute_on: datetime) -> TransferFile:
    from deployment.books.accounts import load_accounts  # noqa: PLC0415 - with the extra alone
    from deployment.books.sepa import transfer_file  # noqa: PLC0415

    return transfer_file(closed, load_accounts(accounts), execute_on.date())


def _money(cents: Mapping[str, int]) -> str:
    return write_readable(sum(cents.values()), "EUR", 2)


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read, whole or not at all.

    Raises:
        DestinationError: it cannot be written.
    """
    try:
        with draft_of(path) as draft:
            draft.write_bytes(content)
            put(draft, path, replace=True)
    except OSError as error:
        raise DestinationError(f"{path}: cannot be written: {error.strerror}") from error
