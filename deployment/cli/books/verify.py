"""`protoken ledger verify`: all of the books rebuilt from their rows, as an auditor would."""

from pathlib import Path
from typing import Annotated

import typer

from deployment.cli.books.trusted_keys import PublicKeys, read_checkpoint, read_keys
from deployment.cli.number_format import credit
from deployment.cli.options import AS_SET, Config, Json, LedgerUrl, is_typed
from deployment.cli.output import print_json, say
from deployment.cli.progress import ProgressBar
from deployment.cli.tables import print_table
from rewards.audit.replay import audit
from rewards.audit.report import Report
from rewards.files.plain_text import one_line


def verify(
    ctx: typer.Context,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    copy: Annotated[
        Path | None, typer.Option("--copy", help="Copy of an SQLite ledger that nobody writes; may be read-only.")
    ] = None,
    public_key: PublicKeys = None,
    held: Annotated[
        Path | None, typer.Option("--checkpoint", help="Checkpoint from earlier, which the log must extend.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rebuild the books from their rows alone; exit code 1 names the first row that differs.

    Without --public-key the keys that the books name are believed, which somebody who rewrote all of them could choose.
    """
    if copy is not None and is_typed(ctx, "ledger"):
        raise typer.BadParameter("give either --ledger or --copy")
    where = copy or ledger
    keys, note = read_keys(public_key), None if held is None else read_checkpoint(held)
    with ProgressBar() as progress:
        report = audit(where, keys=keys, held=note, progress=progress)
    if as_json:
        print_json(report.to_document())
    if report.difference is not None:
        missing = _explain_missing(report)
        typer.echo(one_line(f"protoken: the books are not in order: {report.difference}{missing}"), err=True)
        raise typer.Exit(1)
    if not as_json:
        _show(report, are_known=bool(keys))
    if copy is not None and report.lacks_write_ahead_log:
        typer.echo(
            f"protoken: what is in {copy} is in order, but it is the bare copy of a ledger in write-ahead mode: what "
            f"waited in {copy.name}-wal is not in it, and nothing in it can tell how much that was; copy by `protoken "
            "ledger backup`, or bring that file beside it",
            err=True,
        )
        raise typer.Exit(1)


def _show(report: Report, *, are_known: bool) -> None:
    rows = [(account, credit(amount)) for account, amount in report.balances.items()]
    footer = ("sum", credit(sum(report.balances.values())))
    print_table(f"{report.tokens} tokens, rebuilt", ("account", "credit"), rows, footer=footer)
    counted = ", ".join(f"{number} {table}" for table, number in report.counts.items())
    say(f"in order: {counted}")
    if report.origin is not None:
        whose = "that you gave" if are_known else "that the books name; compare them: " + ", ".join(report.keys)
        say(f"log {report.origin}: {report.size} leaves, root {report.root}", soft_wrap=True)
        say(f"signed by keys {whose}", soft_wrap=True)
    if report.extends is not None:
        say(f"it extends the {report.extends} leaves of the checkpoint that you hold")
    if report.unsealed:
        say(f"not in the log yet: {report.unsealed} receipts and events")


def _explain_missing(report: Report) -> str:
    """What a checkpoint proves that reaches further than the books."""
    difference = report.difference
    if difference is None or (difference.table, difference.field) != ("the checkpoint held", "size"):
        return ""
    lost = f": the checkpoint proves {difference.key} leaves, so what came after the first {report.size} is missing"
    log = "; it is in the -wal file that was not copied with the ledger" if report.lacks_write_ahead_log else ""
    return lost + log
