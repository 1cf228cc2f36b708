"""`protoken ledger backup | restore | migrate`: a ledger as a whole, so that nothing of it is lost."""

from pathlib import Path
from typing import Annotated

import typer

from deployment.cli.options import AS_SET, Config, Json, LedgerUrl, file_to_write
from deployment.cli.output import print_json
from deployment.cli.progress import ProgressBar
from rewards.backups import copying
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from rewards.log.checkpoints import latest_checkpoint
from rewards.moments import text_of
from rewards.store.database import connect_unchanged
from rewards.store.url import url_without_password


def backup(
    file: Annotated[Path, typer.Argument(parser=file_to_write, metavar="FILE", help="Where the copy goes.")],
    replace: Annotated[bool, typer.Option("--replace", help="It may take the place of an older backup.")] = False,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Copy the whole ledger to a file, also while the service runs, and read the copy back before it is called done.

    The pepper, the signing key and the spool are not in it: keep those too.
    """
    with ProgressBar() as progress:
        copied = copying.backup(ledger, file, replace=replace, progress=progress)
    _show(copied, file, f"{url_without_password(ledger)} is copied to {file}", as_json=as_json)
    if copied.difference is not None:
        raise LedgerError(f"{file} is a true copy, but of books that are not in order: {copied.difference}")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `protoken ledger backup` made.")],
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Take a bare SQLite file too, whose latest receipts may be missing.")
    ] = False,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Make the ledger from a copy, where there is none; on PostgreSQL, in an empty database.

    Bring the pepper, the signing key and the spool that belong to it back as well.
    """
    with ProgressBar() as progress:
        copied = copying.restore(file, ledger, incomplete=incomplete, progress=progress)
    _show(copied, file, f"{url_without_password(ledger)} is restored from {file}", as_json=as_json)
    if copied.is_audited and not as_json:
        _show_end(ledger)


def migrate(ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False) -> None:
    """Bring a ledger that an older protoken made to this one's schema; stop the service and keep a backup before.

    All of it or nothing: whatever fails leaves the ledger as it was. No other command migrates.
    """
    before, now = Ledger.migrate(ledger)
    if as_json:
        print_json({"ledger": url_without_password(ledger), "before": before, "schema": now})
    elif before == now:
        typer.echo(f"{url_without_password(ledger)} is of schema {now} already; nothing was changed")
    else:
        typer.echo(f"{url_without_password(ledger)} is of schema {now} now; it was of {before}")


def _show_end(ledger: str) -> None:
    """How far the log of a restored ledger reaches: what it is to be held against before anything is signed again."""
    with connect_unchanged(ledger) as connection:
        sealed = latest_checkpoint(connection)
    seal = "nothing of it was sealed"
    if sealed is not None:
        seal = f"its log has {sealed.size} leaves, sealed at {text_of(sealed.sealed_at_us)}"
    typer.echo(
        f"{seal}; what was booked after the backup is lost, and whoever holds a later checkpoint will find the log "
        "rewritten once this one grows: before you start the service, hold it against the newest that members have, "
        "by `protoken ledger verify --checkpoint FILE`, and tell them what is lost"
    )


def _show(copied: copying.CopyReport, file: Path, line: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"file": str(file), "rows": copied.rows, "audited": copied.is_audited})
        return
    rows = ", ".join(f"{count} {table}" for table, count in copied.rows.items())
    checked = "books rebuilt from their rows" if copied.is_audited else "rows counted again"
    typer.echo(f"{line}: {rows}; {checked}")
