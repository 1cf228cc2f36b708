"""Where an audit reads: a live ledger, or a copy of a SQLite file that nobody can write. Writes nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from rewards.audit.write_ahead import require_whole_log
from rewards.errors import LedgerError
from rewards.store.database import Database, connect_to_file

StoredRow = dict[str, Any]
"""A row of a table as it stands, column -> value; whatever somebody may have written there."""
_ROWS = 1000  # fetched at a time: memory stays flat, whatever the ledger's size


POSTGRESQL_DUMP = b"PGDMP"
"""What a backup of a PostgreSQL ledger begins with."""


class Source:
    """The rows of a ledger as they are at one moment."""

    def __init__(self, connection: Connection, results: ExitStack) -> None:
        self._connection = connection
        self._results = results

    def rows(self, query: Select[Any]) -> Iterator[StoredRow]:
        """The rows of a query, streamed; any number of queries may be under way at once."""
        result = self._results.enter_context(
            closing(self._connection.execute(query, execution_options={"yield_per": _ROWS}))
        )
        return (dict(**row) for row in result.mappings())

    def all(self, query: Select[Any]) -> list[StoredRow]:
        """The rows of a query that has few."""
        return [dict(**row) for row in self._connection.execute(query).mappings()]

    def columns(self, table: Any) -> list[Any]:
        """The columns of a table that this ledger has: a copy may be older than the program."""
        names = {each["name"] for each in inspect(self._connection).get_columns(table.__tablename__)}
        return [each for each in table.__table__.columns if each.name in names]

    def can_read(self, table: Any) -> bool:
        """Whether this ledger has the table, which a copy may be too old for, and this login may read it."""
        name = table.__tablename__
        if not inspect(self._connection).has_table(name):
            return False
        if self._connection.dialect.name != "postgresql":
            return True
        return bool(self._connection.execute(select(func.has_table_privilege(name, "SELECT"))).scalar_one())

    def count(self, table: Any) -> int:
        """The number of rows of a table."""
        return int(self._connection.execute(select(func.count()).select_from(table)).scalar_one())


@contextmanager
def open_source(ledger: str | Path) -> Iterator[Source]:
    """A transaction that sees the ledger as it is at one moment.

    Args:
        ledger: URL of a ledger, or the path of a SQLite file that nobody writes any more.

    Raises:
        LedgerError: there is no ledger, or it cannot be read; or the -wal beside a file is cut, or none of its own.
    """
    with ExitStack() as stack:
        if isinstance(ledger, Path):
            connection = stack.enter_context(_open_copy(ledger))
        else:
            database = stack.enter_context(closing(Database(ledger)))
            connection = stack.enter_context(database.read())
        yield Source(connection, stack.enter_context(ExitStack()))


@contextmanager
def _open_copy(path: Path) -> Iterator[Connection]:
    if not path.is_file():
        raise LedgerError(f"no ledger at {path}")
    with path.open("rb") as opened:
        if opened.read(len(POSTGRESQL_DUMP)) == POSTGRESQL_DUMP:
            raise LedgerError(
                f"{path} is a backup of a PostgreSQL ledger, which is read where it is restored: restore it into an "
                "empty database by `protoken ledger restore`, and verify that"
            )
    require_whole_log(path)
    wal = path.with_name(f"{path.name}-wal")
    is_whole = not wal.exists() or wal.stat().st_size == 0  # no pages wait in a -wal file
    try:
        with connect_to_file(path, is_shared=not is_whole) as connection:
            yield connection
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        hint = "" if is_whole else f"; {wal.name} has to be beside it, in a folder that can be written"
        raise LedgerError(f"ledger {path}: {reason}{hint}") from error
