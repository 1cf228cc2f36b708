"""Pages of receipts, entries and events, filtered, each beginning where the one before ended. Writes nothing.

A page reads about as many rows as it shows, wherever in the books it lies. Knows no caller: that a client sees its own
entries only is asked of here by naming it, and of PostgreSQL by `Database.read(member=...)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlmodel import col

from rewards import events, reading
from rewards.periods.bodies import KIND as STATEMENT
from rewards.periods.tally import batches
from rewards.sealing import SIGNING_KEY_ADDED
from rewards.tables import EntryRow, ReceiptRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.orm import Mapped

    from rewards.selection import Selection

_OF_RECEIPT = ("sequence", "response_id", "kind", "reverses", "booked_at_us", "created_at_us", "consortium", "tokens")


@dataclass(frozen=True)
class Place:
    """Where a page begins: at a sequence number, but for the first `skip` rows, which the page before has shown."""

    sequence: int = 0
    skip: int = 0


@dataclass(frozen=True)
class Page:
    """Rows in their order, and where the next page begins; None after the last."""

    rows: Sequence[Mapping[str, Any]]
    next: Place | None


def receipts(
    connection: Connection, selection: Selection, place: Place, limit: int, account: str | None = None
) -> Page:
    """At most `limit` receipts, oldest first, each as `Ledger.receipt` gives it.

    Args:
        connection: of `Database.read`, with the right to read whole receipts.
        selection: which receipts.
        place: where the page begins.
        limit: the most receipts, at least 1.
        account: only receipts that give this account credit, or take some back.
    """
    sequence = col(ReceiptRow.sequence)
    query = select(sequence).where(*selection.conditions)
    if account is not None:
        entry = (col(EntryRow.receipt_sequence) == sequence, col(EntryRow.account) == account)
        query = query.where(select(1).where(*entry, col(EntryRow.amount) != 0).exists())
    found = _page(_rows(connection, query.order_by(sequence), sequence, selection, place, limit + 1), place, limit)
    numbers = [row["sequence"] for row in found.rows]
    return Page(reading.receipts(connection, sequence.in_(numbers), limit), found.next)


def entries(
    connection: Connection,
    selection: Selection,
    place: Place,
    limit: int,
    account: str | None = None,
    *,
    with_application: bool = True,
) -> Page:
    """At most `limit` entries, each with what its receipt says of itself, by receipt and account, oldest first.

    Args:
        connection: of `Database.read`; one of a member will do without the application.
        selection: which receipts.
        place: where the page begins.
        limit: the most entries, at least 1.
        account: only entries of this account.
        with_application: tell which application asked.
    """
    sequence, owner = col(EntryRow.receipt_sequence), col(EntryRow.account)
    names = (*_OF_RECEIPT, "application") if with_application else _OF_RECEIPT
    columns = [col(getattr(ReceiptRow, name)) for name in names]
    query = (
        select(*columns, owner, col(EntryRow.amount))
        .join_from(EntryRow, ReceiptRow, sequence == col(ReceiptRow.sequence))
        .where(*selection.conditions)
        .order_by(sequence, owner)
    )
    if account is not None:
        query = query.where(owner == account)
    return _page(_rows(connection, query, sequence, selection, place, limit + 1), place, limit)


def happenings(
    connection: Connection, place: Place, limit: int, *, kind: str | None = None, subject: str | None = None
) -> Page:
    """At most `limit` events, each as its row with the document read, oldest first; of one kind or subject if given."""
    kinds = None if kind is None else [kind]
    after = place.sequence if place.skip else place.sequence - 1
    found = events.find(connection, kinds=kinds, subject=subject, after=after, limit=limit + 1)
    return _page([vars(event) for event in found], place, limit)


def event_is_shown(connection: Connection, sequence: int, client: str | None) -> bool:
    """Whether there is an event of this number that a client may see, as is its own statement; None sees every one."""
    for event in events.find(connection, after=sequence - 1, limit=1):
        own = event.kind == STATEMENT and event.subject.rpartition("/")[2] == client
        return event.sequence == sequence and (client is None or own or event.kind == SIGNING_KEY_ADDED)
    return False


def receipt_number(connection: Connection, response_id: str, client: str | None) -> int | None:
    """The number of a receipt in which a client has an entry, or of any receipt for None; None when there is none.

    A connection of that member is enough.
    """
    query = select(col(ReceiptRow.sequence)).where(col(ReceiptRow.response_id) == response_id)
    if client is not None:
        entry = (col(EntryRow.receipt_sequence) == col(ReceiptRow.sequence), col(EntryRow.account) == client)
        query = query.where(select(1).where(*entry).exists())
    return connection.execute(query).scalar_one_or_none()


def models(connection: Connection) -> list[dict[str, Any]]:
    """The models that answered, in their order: consortium, hash of the weights, first and last receipt, tokens."""
    consortium, model, sequence = col(ReceiptRow.consortium), col(ReceiptRow.model_sha256), col(ReceiptRow.sequence)
    query = select(
        consortium,
        model,
        func.min(sequence).label("first_sequence"),
        func.max(sequence).label("last_sequence"),
        func.sum(col(ReceiptRow.tokens)).label("tokens"),
    )
    rows = connection.execute(query.group_by(consortium, model).order_by(func.min(sequence))).mappings()
    return [{**row, "tokens": int(row["tokens"])} for row in rows]


def _rows(
    connection: Connection, query: Select[Any], sequence: Mapped[int], selection: Selection, place: Place, wanted: int
) -> list[Mapping[str, Any]]:
    """At most `wanted` rows of the selection from a place on: first those of the receipts before its window."""
    found: list[Mapping[str, Any]] = []
    for span in _spans(sequence, selection, place):
        at = place
        while len(found) < wanted:
            rows = connection.execute(query.where(span, sequence >= at.sequence).offset(at.skip).limit(wanted))
            read = [{**row} for row in rows.mappings()]
            found += [row for row in read if row["sequence"] not in selection.excluded]
            if len(read) < wanted:
                break
            at = _after(read, at)
        place = Place()  # it lay in the first span; the others are read from their beginning
    return found[:wanted]


def _spans(sequence: Mapped[int], selection: Selection, place: Place) -> Iterator[ColumnElement[bool]]:
    """Conditions for which receipts to read, one after the other, each few enough for a statement."""
    for some in batches(sorted(number for number in selection.included if number >= place.sequence)):
        yield sequence.in_(some)
    yield sequence.between(selection.after + 1, selection.up_to)


def _page(rows: Sequence[Mapping[str, Any]], place: Place, limit: int) -> Page:
    shown = rows[:limit]
    return Page(shown, _after(shown, place) if len(rows) > limit else None)


def _after(rows: Sequence[Mapping[str, Any]], place: Place) -> Place:
    """Where to go on after rows that began at a place: maybe in the midst of a receipt that has more."""
    last = rows[-1]["sequence"]
    before = place.skip if place.sequence == last else 0
    return Place(last, before + sum(row["sequence"] == last for row in rows))
