"""Pages of receipts and entries, filtered, each beginning after the last row of the one before. Writes nothing.

A page reads about as many rows as it shows, wherever in the books it lies; what is booked meanwhile comes on a later
page. Knows no caller: that a client sees its own entries only is asked of here by naming it, and of PostgreSQL by
`Database.read(member=...)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select, tuple_
from sqlalchemy.orm import Mapped
from sqlmodel import col

from rewards.store.queries import batches
from rewards.store.receipts import BookedEntry, BookedReceipt, entries_query, entry_of, read_receipts
from rewards.store.sums import exact_sum
from rewards.store.tables import EntryRow, ReceiptRow
from rewards.views.page import Page
from rewards.views.selection import Selection, condition_among, with_entry_of


@dataclass(frozen=True)
class AnsweringModel:
    """A global model that answered, and what it came to.

    Attributes:
        consortium: whose model it is.
        model_sha256: the hash of its weights.
        receipts: its responses and their reversals.
        tokens: its generated tokens, less those reversed.
        first_booked_at_us: when the first of its receipts was booked, in microseconds since 1970.
        last_booked_at_us: when the last one was.
    """

    consortium: str
    model_sha256: str
    receipts: int
    tokens: int
    first_booked_at_us: int
    last_booked_at_us: int


def receipts(
    connection: Connection,
    selection: Selection,
    *,
    limit: int,
    place: tuple[int] | None = None,
    account: str | None = None,
) -> Page[BookedReceipt]:
    """At most `limit` receipts, oldest first.

    Args:
        connection: of `Database.read`, with the right to read whole receipts.
        selection: which receipts.
        limit: the most receipts, at least 1.
        place: begin after this sequence number.
        account: only receipts that give this account credit, or take some back.
    """
    sequence = col(ReceiptRow.sequence)
    query, order = select(sequence).where(*selection.conditions), [sequence]
    if account is not None:
        query = with_entry_of(query, account)
        order = [col(EntryRow.receipt_sequence)]  # the order of the index `entries_by_account`
    rows, further = _first(_rows(connection, query, order, selection, place, limit), ["sequence"], limit)
    numbers = [row["sequence"] for row in rows]
    shown = [each for some in batches(numbers) for each in read_receipts(connection, sequence.in_(some), len(some))]
    return Page(shown, further)


def entries(
    connection: Connection,
    selection: Selection,
    *,
    limit: int,
    place: tuple[int, str] | None = None,
    account: str | None = None,
    with_application: bool = True,
) -> Page[BookedEntry]:
    """At most `limit` entries, each with what its receipt says of itself, by receipt and account, oldest first.

    Args:
        connection: of `Database.read`; one of a member will do without the application.
        selection: which receipts.
        limit: the most entries, at least 1.
        place: begin after the entry of this sequence number and account.
        account: only entries of this account.
        with_application: tell which application asked.
    """
    sequence, owner = col(EntryRow.receipt_sequence), col(EntryRow.account)
    query = entries_query(with_application=with_application).where(*selection.conditions)
    if account is None:
        rows = _rows(connection, query, [sequence, owner], selection, place, limit)
    else:  # one entry for each receipt: its number is place enough, and one range of the index `entries_by_account`
        rows = _rows(connection, query.where(owner == account), [sequence], selection, place and place[:1], limit)
    shown, further = _first(rows, ["sequence", "account"], limit)
    return Page([entry_of(row) for row in shown], further)


def models(connection: Connection) -> list[AnsweringModel]:
    """The models that answered, in the order of their first receipt."""
    consortium, model, booked = col(ReceiptRow.consortium), col(ReceiptRow.model_sha256), col(ReceiptRow.booked_at_us)
    query = select(
        consortium,
        model,
        func.count().label("receipts"),
        exact_sum(col(ReceiptRow.tokens)).label("tokens"),
        func.min(booked).label("first_booked_at_us"),
        func.max(booked).label("last_booked_at_us"),
    )
    rows = connection.execute(query.group_by(consortium, model).order_by(func.min(col(ReceiptRow.sequence))))
    return [AnsweringModel(**{**row, "tokens": int(row["tokens"])}) for row in rows.mappings()]


def _rows(
    connection: Connection,
    query: Select[Any],
    order: Sequence[Mapped[Any]],
    selection: Selection,
    place: tuple[Any, ...] | None,
    limit: int,
) -> Iterator[RowMapping]:
    """The rows of a selection after a place, read as they are wanted. `order`: sequence numbers, and maybe accounts."""
    sequence = col(ReceiptRow.sequence)
    # Of receipts and of their entries: PostgreSQL would not conclude the one from the other, and would read them all.
    numbers = (sequence,) if order[0] is sequence else (sequence, order[0])
    for sequences in _spans(selection, 0 if place is None else place[0]):
        statement = query.where(*(condition_among(number, sequences) for number in numbers))
        at = place
        while True:
            rest = statement if at is None else statement.where(tuple_(*order) > tuple_(*at))
            read = connection.execute(rest.order_by(*order).limit(limit + 1)).mappings().all()
            yield from (row for row in read if row["sequence"] not in selection.excluded)
            if len(read) <= limit:
                break
            at = _place(read[-1], ("sequence", "account")[: len(order)])


def _spans(selection: Selection, begin: int) -> Iterator[Sequence[int]]:
    """Which receipts to read from a number on, one after the other, each few enough for a statement."""
    yield from batches(sorted(number for number in selection.included if number >= begin))
    yield range(max(selection.after + 1, begin), selection.up_to + 1)


def _first(
    rows: Iterator[RowMapping], names: Sequence[str], limit: int
) -> tuple[list[RowMapping], tuple[Any, ...] | None]:
    """The first of some rows, as many as a page takes, and the place of the last of them where there are more."""
    read = list(islice(rows, limit + 1))
    shown = read[:limit]
    return shown, _place(shown[-1], names) if len(read) > limit else None


def _place(row: RowMapping, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)
