"""Backup and restore: where they may go, what is copied, what is checked before it is called done. Knows no tool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, inspect, select
from sqlmodel import SQLModel

from rewards.audit.replay import audit
from rewards.audit.report import AuditProgress, Difference
from rewards.audit.write_ahead import lacks_write_ahead_log, require_whole_log
from rewards.backups import places, postgresql, replacing, sqlite
from rewards.errors import LedgerError
from rewards.files import private_files
from rewards.store import schema
from rewards.store.database import connect_as_is
from rewards.store.url import sqlite_file, url_without_password


@dataclass(frozen=True)
class CopyReport:
    """What was copied.

    Attributes:
        rows: table -> number of rows, counted in the copy.
        is_audited: whether the books in it were rebuilt from their rows; not those of another schema than this one's,
            nor those in a file of PostgreSQL's.
        difference: the first row that is not in order; None where there is none, or nobody looked.
    """

    rows: dict[str, int]
    is_audited: bool
    difference: Difference | None


def backup(url: str, file: Path, *, replace: bool = False, progress: AuditProgress | None = None) -> CopyReport:
    """Copy a ledger, as it is at one moment, to a file; it may be in use, and goes on meanwhile.

    On return the copy is on disk, for its owner alone, and was read back: it has every row, and what it says is
    audited where it can be. A ledger that is not in order is copied all the same, and that is told.

    Args:
        url: the ledger, of whatever schema.
        file: where the copy goes.
        replace: whether it may take the place of an older backup of this ledger; never of anything else.
        progress: is told how far it is.

    Raises:
        LedgerError: there is a file already that is not to be replaced, there is no ledger, it is a copy whose -wal is
            cut or none of its own, or the copy could not be made; none is left then.
    """
    source = sqlite_file(url)
    places.require_free(file, source, replace=replace)
    if source is not None and not source.with_name(f"{source.name}-shm").exists():  # nobody has it open, or crashed
        require_whole_log(source)
    with _name_failures(f"backup {file}"), private_files.draft_of(file) as draft:
        with connect_as_is(url) as connection:
            is_current = schema.is_current(connection, url_without_password(url))
            if replace:
                replacing.require_older(file, connection)
            rows = _rows(connection)
            if source is None:
                postgresql.dump(connection, url, draft, rows, progress)
                copied = CopyReport(rows, is_audited=False, difference=None)
            else:
                sqlite.copy(connection, draft, progress)
        if source is not None:
            copied = _check_copy(draft, rows, is_current=is_current, progress=progress)
        private_files.put(draft, file, replace=replace)
    return copied


def restore(file: Path, url: str, *, incomplete: bool = False, progress: AuditProgress | None = None) -> CopyReport:
    """Make a ledger from a copy, where there is none: all of it or nothing.

    Args:
        file: what `backup` made, or an SQLite ledger that nobody writes.
        url: where the ledger is to be; on PostgreSQL, an empty database.
        incomplete: take an SQLite file too of which nobody can say that it is whole.
        progress: is told how far it is.

    Raises:
        LedgerError: there is a ledger already, or something has its place open; the copy is none of this database or
            of no ledger, is of a newer version, or is not whole; or its books are not in order (on PostgreSQL alone,
            it is restored then). Nothing was changed.
    """
    target = sqlite_file(url)
    places.require_copy(file, is_sqlite=target is not None)
    if target is None:
        return _restore_to_postgresql(file, url, progress)
    places.require_vacant(target)
    if not incomplete:
        _require_log(file)
    with _name_failures(f"restore {file}"), private_files.draft_of(target) as draft:
        with connect_as_is(f"sqlite:///{file.absolute()}") as connection:
            is_current, rows = schema.is_current(connection, str(file)), _rows(connection)
            schema.require_not_newer(connection, str(file))
            sqlite.copy(connection, draft, progress)
        copied = _check_copy(draft, rows, is_current=is_current, progress=progress)
        if copied.difference is not None:
            raise LedgerError(f"the books in {file} are not in order, and nothing was restored: {copied.difference}")
        sqlite.write_ahead(draft)
        places.require_vacant(target)
        private_files.put(draft, target)
    return copied


def _require_log(file: Path) -> None:
    """Refuse an SQLite file of which nobody can say that it is whole."""
    if lacks_write_ahead_log(file):
        raise LedgerError(
            f"{file} is a bare copy of a ledger in write-ahead mode: what waited in {file.name}-wal is not in it, and "
            "nothing can tell how much that was; bring that file beside it, or take it as it is by --incomplete"
        )
    require_whole_log(file)


def _restore_to_postgresql(file: Path, url: str, progress: AuditProgress | None) -> CopyReport:
    with connect_as_is(url) as connection:
        schema.require_empty(connection, url_without_password(url))
    postgresql.require_ledger(file)
    postgresql.load(file, url)
    with connect_as_is(url) as connection:
        is_current, rows = schema.is_current(connection, url_without_password(url)), _rows(connection)
    report = audit(url, progress=progress) if is_current else None
    if report is not None and report.difference is not None:
        raise LedgerError(
            f"{url_without_password(url)} is restored, but its books are not in order: {report.difference}"
        )
    return CopyReport(rows, is_audited=report is not None, difference=None)


def _check_copy(draft: Path, rows: dict[str, int], *, is_current: bool, progress: AuditProgress | None) -> CopyReport:
    """Read a copy back: its pages, its rows, and what they say."""
    sqlite.require_sound(draft)
    with connect_as_is(f"sqlite:///{draft}") as connection:
        counts = _rows(connection)
    if counts != rows:
        raise LedgerError(f"the copy has other rows than the ledger: {counts}, not {rows}")
    report = audit(draft, progress=progress) if is_current else None
    return CopyReport(counts, is_audited=report is not None, difference=None if report is None else report.difference)


def _rows(connection: Connection) -> dict[str, int]:
    """Table -> rows, of those that there are; an older ledger has not all of them."""
    tables = set(inspect(connection).get_table_names()) & set(SQLModel.metadata.tables)
    count = {name: select(func.count()).select_from(SQLModel.metadata.tables[name]) for name in sorted(tables)}
    return {name: int(connection.execute(query).scalar_one()) for name, query in count.items()}


@contextmanager
def _name_failures(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerError(f"{what}: {error.strerror or error}") from error
