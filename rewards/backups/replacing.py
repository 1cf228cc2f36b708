"""Whether the file whose place a backup takes is an older backup of the same ledger. Changes nothing.

A ledger only grows, and each row has a salt of its own: a backup is an older one where its first event and its last
rows are the ledger's.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, text

from rewards.audit.source import POSTGRESQL_DUMP
from rewards.audit.write_ahead import SQLITE, is_write_ahead
from rewards.backups import postgresql
from rewards.errors import LedgerError

_GROWING = ("receipts", "events")
_Row = tuple[int, str | None]  # sequence and salt


@dataclass
class _Reach:
    """From where to where a backup has rows.

    Attributes:
        first: its first event, by which a ledger is known; None where there is none.
        last: table -> its last row.
    """

    first: _Row | None = None
    last: dict[str, _Row] = field(default_factory=dict)


def require_older(file: Path, connection: Connection) -> None:
    """Refuse to replace what is no backup, is one of another ledger, or has what the ledger has not.

    Args:
        file: whose place is to be taken; may be absent or empty.
        connection: of a transaction that reads the ledger.

    Raises:
        LedgerError: says which; or it cannot be read, for a dump also where PostgreSQL's tools are missing.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(len(SQLITE))
    except FileNotFoundError:
        return
    except OSError as error:
        raise LedgerError(f"backup {file}: the file that is there cannot be read: {error.strerror}") from error
    if not start:
        return
    reach = None
    if start.startswith(POSTGRESQL_DUMP):
        reach = _reach_of_dump(file)
    elif start == SQLITE and not is_write_ahead(file):  # which a ledger is, and no copy of one
        reach = _reach_of_copy(file)
    if reach is None:
        raise LedgerError(
            f"backup {file}: this is no backup of a ledger, and only an older one is replaced; give another name"
        )
    if reach.first is not None and not _has(connection, "events", reach.first):
        raise LedgerError(f"backup {file}: this is a backup of another ledger; give another name")
    for table, row in reach.last.items():
        if not _has(connection, table, row):
            raise LedgerError(
                f"backup {file}: the backup that is there has {table} up to {row[0]}, which this ledger has not: it "
                "was set back, and that backup is what is left of them; give another name"
            )


def _reach_of_copy(file: Path) -> _Reach | None:
    """None for what is no backup."""
    ends = "SELECT sequence, salt FROM {} ORDER BY sequence {} LIMIT 1"
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as made:
            rows = {table: made.execute(ends.format(table, "DESC")).fetchone() for table in _GROWING}
            first = made.execute(ends.format("events", "ASC")).fetchone()
    except sqlite3.Error:
        return None
    return _Reach(first, {table: row for table, row in rows.items() if row is not None})


def _reach_of_dump(file: Path) -> _Reach | None:
    if not postgresql.is_ledger(file):
        return None
    reach = _Reach()
    for table, values in postgresql.rows_of(file, _GROWING):
        if not values.get("sequence", "").isdigit():
            return None
        row = (int(values["sequence"]), values.get("salt"))
        reach.last[table] = max(reach.last.get(table, row), row, key=_sequence)
        if table == "events":
            reach.first = min(reach.first or row, row, key=_sequence)
    return reach


def _sequence(row: _Row) -> int:
    return row[0]


def _has(connection: Connection, table: str, row: _Row) -> bool:
    query = text(f"SELECT salt FROM {table} WHERE sequence = :sequence")  # noqa: S608 - a name of ours
    return row[1] is not None and connection.execute(query, {"sequence": row[0]}).scalar() == row[1]
