"""Receipts and their entries as they stand in the books, and how they are read. Writes nothing.

What a receipt is before it is booked, `rewards.credit` says. All within a transaction that somebody else opened. Knows
no page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, select
from sqlalchemy.orm import Mapped, aliased
from sqlmodel import col

from rewards.store.queries import batches
from rewards.store.tables import EntryRow, ReceiptRow

Kind = Literal["response", "reversal"]
"""What a receipt is of: a response's credit, or the counter-entry that takes it back."""

# What a member may read of a receipt. Who asked is not among it.
_OF_RECEIPT = (
    "sequence",
    "response_id",
    "kind",
    "reverses",
    "booked_at_us",
    "created_at_us",
    "consortium",
    "model_sha256",
    "tokens",
)


@dataclass(frozen=True)
class BookedReceipt:
    """The credit of one response, or the counter-entry that reverses one, as it was booked.

    Attributes:
        sequence: its number, from 1 without gap.
        kind: what it is of.
        response_id: unique for ever.
        reverses: the response that a reversal takes back; None for a response.
        payload_sha256: hash of what was booked, all but the number, the moment of booking and the salt.
        salt: what keeps its leaf in the Merkle log from being guessed.
        booked_at_us: when it was booked, in microseconds since 1970; never decreases along the sequence.
        created_at_us: when the response was generated, or the reversal made.
        application: id of the key that asked.
        consortium: whose model answered.
        model_sha256: hash of the global model.
        method: attribution preset.
        settings: the attribution's settings (JSON).
        version: version of the attribution code.
        tokens: generated tokens; negative in a reversal.
        measurement: evidence (JSON); of a reversal, who says so and why.
        duration_us: how long the response took, in microseconds.
        amounts: account -> micro-credits, in the order of names; they sum to `tokens` * 1 000 000.
    """

    sequence: int
    kind: Kind
    response_id: str
    reverses: str | None
    payload_sha256: str
    salt: str
    booked_at_us: int
    created_at_us: int
    application: str
    consortium: str
    model_sha256: str
    method: str
    settings: Mapping[str, Any]
    version: str
    tokens: int
    measurement: Mapping[str, Any]
    duration_us: int
    amounts: Mapping[str, int]


@dataclass(frozen=True)
class BookedEntry:
    """One account's credit of one receipt, with what the receipt says of itself, as in `BookedReceipt`.

    Attributes:
        account: a client's id, or the commons.
        amount: micro-credits; negative in a reversal.
        application: id of the key that asked; None where that was not read.
    """

    sequence: int
    kind: Kind
    response_id: str
    reverses: str | None
    booked_at_us: int
    created_at_us: int
    consortium: str
    model_sha256: str
    tokens: int
    account: str
    amount: int
    application: str | None = None


def find_receipt(connection: Connection, response_id: str) -> BookedReceipt | None:
    """The receipt of a response, or of a reversal; None when there is none."""
    return next(iter(read_receipts(connection, col(ReceiptRow.response_id) == response_id, limit=1)), None)


def read_receipts(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[BookedReceipt]:
    """At most `limit` receipts that meet a condition, in the order of booking."""
    sequence = col(ReceiptRow.sequence)
    rows = connection.execute(select(ReceiptRow).where(condition).order_by(sequence).limit(limit)).mappings().all()
    amounts: dict[int, dict[str, int]] = {row["sequence"]: {} for row in rows}
    for receipt_sequence, account, amount in _amounts(connection, amounts):
        amounts[receipt_sequence][account] = amount
    return [_receipt(row, amounts[row["sequence"]]) for row in rows]


def entries_query(*, with_application: bool) -> Select[Any]:
    """The query of entries, for `entry_of` to read: each with what a member may read of its receipt.

    Args:
        with_application: and with who asked, which no member may read.
    """
    names = (*_OF_RECEIPT, "application") if with_application else _OF_RECEIPT
    of_receipt = (col(getattr(ReceiptRow, name)) for name in names)
    joined = col(EntryRow.receipt_sequence) == col(ReceiptRow.sequence)
    return select(*of_receipt, col(EntryRow.account), col(EntryRow.amount)).join_from(EntryRow, ReceiptRow, joined)


def entry_of(row: RowMapping) -> BookedEntry:
    """An entry from a row of `entries_query`."""
    return BookedEntry(**row)


def reversal_pairs() -> tuple[Select[int, int], Mapped[int], Mapped[int]]:
    """The query of each reversal's number with that of the response it reverses, and these two columns."""
    reversal, original = aliased(ReceiptRow), aliased(ReceiptRow)
    taking, taken = col(reversal.sequence), col(original.sequence)
    query = (
        select(taking, taken)
        .join_from(reversal, original, col(reversal.reverses) == col(original.response_id))
        .where(col(reversal.reverses).is_not(None))
    )
    return query, taking, taken


def reversals_booked(
    connection: Connection, after: int, up_to: int, others: Iterable[int] = ()
) -> Iterator[tuple[int, int]]:
    """(reversal, what it reverses) by sequence number: of reversals with after < sequence ≤ up_to, and of `others`."""
    pairs, reversal, _ = reversal_pairs()
    conditions = [and_(reversal > after, reversal <= up_to), *(reversal.in_(some) for some in batches(sorted(others)))]
    for condition in conditions:
        yield from ((taking, taken) for taking, taken in connection.execute(pairs.where(condition)))


def _receipt(row: RowMapping, amounts: Mapping[str, int]) -> BookedReceipt:
    documents = {name: json.loads(row[name]) for name in ("settings", "measurement")}
    return BookedReceipt(**{**row, **documents}, amounts=amounts)


def _amounts(connection: Connection, sequences: Iterable[int]) -> Iterable[Any]:
    """(receipt sequence, account, amount) of the receipts, in the order of receipts and accounts."""
    wanted = list(sequences)
    number = col(EntryRow.receipt_sequence)
    is_range = wanted and wanted[-1] - wanted[0] == len(wanted) - 1
    condition = number.between(wanted[0], wanted[-1]) if is_range else number.in_(wanted)
    query = select(number, col(EntryRow.account), col(EntryRow.amount)).where(condition)
    return connection.execute(query.order_by(number, col(EntryRow.account))) if wanted else ()
