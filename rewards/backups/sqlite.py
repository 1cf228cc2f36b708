"""A ledger on SQLite into one file that is whole by itself, while others write. Knows pages, and no table."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from rewards.audit.report import AuditProgress
from rewards.errors import LedgerError

PAGES = 2560
"""Pages of one step, 10 MB of the usual ones."""


def copy(connection: Connection, target: Path, progress: AuditProgress | None) -> None:
    """Copy the database as an open transaction sees it; whoever writes meanwhile is neither held up nor copied.

    The transaction matters: without one SQLite would begin anew each time somebody writes, and never end.

    Raises:
        LedgerError: the database or the disk refuses.
    """
    live = connection.connection.driver_connection
    assert isinstance(live, sqlite3.Connection), live
    copied = 0

    def report(_status: int, remaining: int, total: int) -> None:
        nonlocal copied
        if progress is not None and not copied:
            progress.start("steps of copying", -(-total // PAGES))
        if progress is not None:
            progress.advance()
        copied = total - remaining

    with _name_failures(target), closing(sqlite3.connect(target)) as made:
        live.backup(made, pages=PAGES, progress=report)
        made.execute("PRAGMA journal_mode = DELETE")  # so that it needs no file beside it, and says so


def require_sound(file: Path) -> None:
    """Read every page of a copy.

    Raises:
        LedgerError: SQLite finds a fault.
    """
    with _name_failures(file), closing(sqlite3.connect(file)) as made:
        (verdict,) = made.execute("PRAGMA integrity_check(1)").fetchone()
        broken = made.execute("PRAGMA foreign_key_check").fetchone()
    if verdict != "ok" or broken is not None:
        raise LedgerError(f"{file}: the copy is not sound: {verdict if verdict != 'ok' else broken}")


def write_ahead(file: Path) -> None:
    """Put a copy into the mode in which a ledger is used."""
    with _name_failures(file), closing(sqlite3.connect(file)) as made:
        made.execute("PRAGMA journal_mode = WAL")


@contextmanager
def _name_failures(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(f"{file}: {error}") from error
