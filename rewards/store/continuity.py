"""That a ledger only grows, looked at again and again by whoever lives from it. Writes nothing."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.errors import LedgerError, LedgerLostError
from rewards.store.database import Database
from rewards.store.tables import ReceiptRow

_NO_TABLE: Final = "42P01"


class Continuity:
    """That a ledger only grows: the last receipt that was seen is there the next time. From one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: tuple[int, str] | None = None

    def check(self) -> None:
        """Look at the rows.

        Raises:
            LedgerLostError: the ledger is gone, is another one, or was set back to an older state.
            LedgerError: the database is away, so nobody knows.
        """
        try:
            with self._database.read() as connection:
                self.require(connection)
        except LedgerError as error:
            if _lacks_a_table(error):
                raise LedgerLostError(str(error), "ledger_missing") from error
            raise

    def require(self, connection: Connection) -> None:
        """The same within a transaction, so that nothing comes between a look and what relies on it."""
        sequence = col(ReceiptRow.sequence)
        receipts = select(sequence, col(ReceiptRow.response_id))
        self._database.origin.require(connection)
        seen = self._last and connection.execute(receipts.where(sequence == self._last[0])).one_or_none()
        last = connection.execute(receipts.order_by(sequence.desc()).limit(1)).one_or_none()
        if self._last is not None and (seen is None or tuple(seen) != self._last):
            raise LedgerLostError(
                f"the ledger was set back: receipt {self._last[0]}, which was in it, is there no more; start again",
                "ledger_replaced",
            )
        self._last = None if last is None else (last[0], last[1])


def _lacks_a_table(error: LedgerError) -> bool:
    cause = getattr(error.__cause__, "orig", None)
    return getattr(cause, "sqlstate", None) == _NO_TABLE or str(cause).startswith("no such table: ")
