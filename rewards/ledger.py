"""The only writer of receipts: books each response once, and adds up what is booked. Knows no policy and no payout.

What `append` promises: when it returns, the receipt and all its entries are on disk, whole; when it raises, none of
them is. A caller that got no answer may append the same receipt again, and again: it is booked once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select
from sqlmodel import col

from rewards.credit import MICRO_CREDITS_PER_TOKEN, canonical_bytes
from rewards.database import Database, now_us, prepare
from rewards.errors import ConflictError
from rewards.tables import EntryRow, ReceiptRow

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection
    from sqlalchemy.orm import Mapped

    from rewards.credit import Receipt


@dataclass(frozen=True)
class Booked:
    """Where a receipt stands in the ledger; `replayed` when it stood there already."""

    sequence: int
    response_id: str
    payload_sha256: str
    replayed: bool


class Ledger:
    """A ledger, open for booking and reading from any number of threads; processes each open their own.

    Args:
        url: `sqlite:////absolute/path.db`, made by `Ledger.prepare`.

    Raises:
        LedgerError: the schema is missing or not at head (here), the database fails (every method).
    """

    prepare = staticmethod(prepare)

    def __init__(self, url: str) -> None:
        self.database = Database(url)

    def append(self, receipt: Receipt) -> Booked:
        """Book a receipt; durable on return. The same receipt again returns its first booking.

        Raises:
            ConflictError: the response id is booked with another payload; nothing is written.
        """
        payload_sha256 = receipt.payload_sha256
        with self.database.write() as connection:
            first = _booking(connection, receipt.response_id)
            if first is None:
                sequence = _book(connection, receipt, payload_sha256)
                return Booked(sequence, receipt.response_id, payload_sha256, replayed=False)
        if first.payload_sha256 != payload_sha256:
            raise ConflictError(
                f"response {receipt.response_id!r} is booked already, as receipt {first.sequence}, with another payload"
            )
        return first

    def receipt(self, response_id: str) -> dict[str, Any] | None:
        """A response's receipt with its amounts, sequence, payload hash and booking time; None when there is none."""
        with self.database.read() as connection:
            found = _receipts(connection, col(ReceiptRow.response_id) == response_id, limit=1)
        return found[0] if found else None

    def receipts_after(self, sequence: int, limit: int = 1000) -> list[dict[str, Any]]:
        """At most `limit` receipts after a sequence number, in the order of booking, each as `receipt` gives it."""
        with self.database.read() as connection:
            return _receipts(connection, col(ReceiptRow.sequence) > sequence, limit)

    def balances(self, *, after: int = 0, up_to: int | None = None) -> dict[str, int]:
        """Account -> micro-credits over the receipts with after < sequence ≤ up_to (to the last one, when None)."""
        with self.database.read() as connection:
            return credit_between(connection, after, up_to)

    def tokens(self, *, after: int = 0, up_to: int | None = None) -> int:
        """Generated tokens over the receipts with after < sequence ≤ up_to (to the last one, when None)."""
        with self.database.read() as connection:
            return tokens_between(connection, after, up_to)

    def last_sequence(self, *, before_us: int | None = None) -> int:
        """The last sequence number such that every receipt up to it was booked before that moment; 0 when none was."""
        with self.database.read() as connection:
            return last_sequence(connection, before_us)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()


def credit_between(connection: Connection, after: int, up_to: int | None) -> dict[str, int]:
    """Account -> micro-credits over the receipts with after < sequence ≤ up_to, in the order of account names."""
    account = col(EntryRow.account)
    total = (
        select(account, func.sum(col(EntryRow.amount)))
        .where(*_window(col(EntryRow.receipt_sequence), after, up_to))
        .group_by(account)
        .order_by(account)
    )
    return dict(connection.execute(total).all())


def tokens_between(connection: Connection, after: int, up_to: int | None) -> int:
    """Generated tokens over the receipts with after < sequence ≤ up_to."""
    total = select(func.sum(col(ReceiptRow.tokens))).where(*_window(col(ReceiptRow.sequence), after, up_to))
    return connection.execute(total).scalar_one() or 0


def last_sequence(connection: Connection, before_us: int | None) -> int:
    """As `Ledger.last_sequence`. A clock may step back, so this looks for the first receipt that is too late."""
    sequence = col(ReceiptRow.sequence)
    if before_us is not None:
        too_late = select(func.min(sequence)).where(col(ReceiptRow.booked_at_us) >= before_us)
        first = connection.execute(too_late).scalar_one()
        if first is not None:
            return int(first) - 1
    return connection.execute(select(func.max(sequence))).scalar_one() or 0


def _window(sequence: Mapped[Any], after: int, up_to: int | None) -> list[ColumnElement[bool]]:
    return [sequence > after] if up_to is None else [sequence > after, sequence <= up_to]


def _booking(connection: Connection, response_id: str) -> Booked | None:
    found = connection.execute(
        select(col(ReceiptRow.sequence), col(ReceiptRow.payload_sha256)).where(
            col(ReceiptRow.response_id) == response_id
        )
    ).one_or_none()
    return None if found is None else Booked(found[0], response_id, found[1], replayed=True)


def _book(connection: Connection, receipt: Receipt, payload_sha256: str) -> int:
    """Write a receipt and its entries into the open transaction; returns the receipt's sequence number."""
    assert sum(receipt.amounts.values()) == receipt.tokens * MICRO_CREDITS_PER_TOKEN, receipt.response_id
    row = {
        "response_id": receipt.response_id,
        "payload_sha256": payload_sha256,
        "booked_at_us": now_us(),
        "created_at_us": receipt.created_at_us,
        "application": receipt.application,
        "consortium": receipt.consortium,
        "model_sha256": receipt.model_sha256,
        "method": receipt.method,
        "settings": canonical_bytes(receipt.settings).decode(),
        "version": receipt.version,
        "tokens": receipt.tokens,
        "measurement": canonical_bytes(receipt.measurement).decode(),
        "duration_us": receipt.duration_us,
    }
    sequence = connection.execute(insert(ReceiptRow).values(row).returning(col(ReceiptRow.sequence))).scalar_one()
    entries = [
        {"receipt_sequence": sequence, "account": account, "amount": amount}
        for account, amount in receipt.amounts.items()
    ]
    connection.execute(insert(EntryRow), entries)
    return sequence


def _receipts(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[dict[str, Any]]:
    """Receipts as mappings, JSON columns read and amounts beside them."""
    sequence = col(ReceiptRow.sequence)
    rows = connection.execute(select(ReceiptRow).where(condition).order_by(sequence).limit(limit)).mappings()
    receipts = {
        row["sequence"]: {
            **row,
            "settings": json.loads(row["settings"]),
            "measurement": json.loads(row["measurement"]),
            "amounts": {},
        }
        for row in rows
    }
    if receipts:
        entry_of = col(EntryRow.receipt_sequence)
        entries = (
            select(entry_of, col(EntryRow.account), col(EntryRow.amount))
            .where(entry_of >= min(receipts), entry_of <= max(receipts))
            .order_by(col(EntryRow.id))
        )
        for receipt_sequence, account, amount in connection.execute(entries):
            receipts[receipt_sequence]["amounts"][account] = amount
    return list(receipts.values())
