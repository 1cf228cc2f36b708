"""A ledger's table that is away for a while, and a clock that is turned by hand."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from rewards.store.database import Database


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def away(database: Database, table: str) -> Iterator[None]:
    """The table cannot be read or written within the `with`, as in an outage of the database; nothing of it is lost."""
    _rename(database, table, f"{table}_away")
    try:
        yield
    finally:
        _rename(database, f"{table}_away", table)


def _rename(database: Database, old: str, new: str) -> None:
    """As the owner of the database would, without the looks at its books with which a transaction of ours begins."""
    with database._writer.begin() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
