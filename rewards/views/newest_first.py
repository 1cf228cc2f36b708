"""The newest receipts and entries first, in pages, and which responses were reversed. Writes nothing.

What `oldest_first` reads in the order of booking, this reads backwards, of all time, for somebody who looks on. A page
costs a range of an index. Knows no caller: that a client sees its own entries only is asked of here by naming it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.ledger import usage
from rewards.store.receipts import BookedEntry, BookedReceipt, entries_query, entry_of, read_receipts
from rewards.store.tables import EntryRow, ReceiptRow
from rewards.views.page import Page
from rewards.views.selection import with_entry_of


def receipts(
    connection: Connection,
    *,
    limit: int,
    place: tuple[int] | None = None,
    application: str | None = None,
    account: str | None = None,
) -> Page[BookedReceipt]:
    """At most `limit` receipts, the newest first.

    Args:
        connection: of `Database.read`, with the right to read whole receipts.
        limit: the most receipts, at least 1.
        place: begin with the receipt before this sequence number.
        application: only receipts of responses that this application asked for, by its identity or any of its keys.
        account: only receipts that give this account credit, or take some back.
    """
    sequence = col(ReceiptRow.sequence)
    query, order = select(sequence), sequence
    if account is not None:
        query, order = with_entry_of(query, account), col(EntryRow.receipt_sequence)
    if place is not None:
        query = query.where(order < place[0])
    query = query.order_by(order.desc()).limit(limit + 1)
    if application is None:
        numbers = list(connection.execute(query).scalars())
    else:  # name by name, each in the order of an index
        names = usage.names_with_receipts(connection, application)
        queries = (query.where(col(ReceiptRow.application) == name) for name in names)
        numbers = sorted((number for each in queries for number in connection.execute(each).scalars()), reverse=True)
    shown = numbers[:limit]
    rows = read_receipts(connection, sequence.in_(shown), limit=limit) if shown else []
    return Page(rows[::-1], (shown[-1],) if len(numbers) > limit else None)


def entries(
    connection: Connection,
    account: str,
    *,
    limit: int,
    place: tuple[int] | None = None,
    response_id: str | None = None,
) -> Page[BookedEntry]:
    """At most `limit` entries of an account, the newest first, each with what its receipt says but for who asked.

    Args:
        connection: of `Database.read`; one of a member will do.
        account: whose entries.
        limit: the most entries, at least 1.
        place: begin with the entry before the one of this receipt's sequence number.
        response_id: only the entry of this response or reversal.
    """
    sequence = col(EntryRow.receipt_sequence)
    query = entries_query(with_application=False).where(col(EntryRow.account) == account)
    if place is not None:
        query = query.where(sequence < place[0])
    if response_id is not None:
        query = query.where(col(ReceiptRow.response_id) == response_id)
    rows = connection.execute(query.order_by(sequence.desc()).limit(limit + 1)).mappings().all()
    shown = [entry_of(row) for row in rows[:limit]]
    return Page(shown, (shown[-1].sequence,) if len(rows) > limit else None)


def reversals(connection: Connection, response_ids: Iterable[str]) -> dict[str, str]:
    """Response id -> the id of its reversal, of those of some responses (few enough for a statement) that have one."""
    reversed_id = col(ReceiptRow.reverses)
    query = select(reversed_id, col(ReceiptRow.response_id)).where(reversed_id.in_(list(response_ids)))
    return {str(taken): taking for taken, taking in connection.execute(query)}
