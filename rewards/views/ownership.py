"""What in the books is a client's own: receipts that have an entry of it, its statements, and the signing keys of all.

Asked of a member's connection the answers are the same, as row-level security draws the same line.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select
from sqlmodel import col

from rewards.log.sealer import SIGNING_KEY_ADDED
from rewards.periods.statement_bodies import STATEMENT_KIND
from rewards.store.tables import EntryRow, EventRow, ReceiptRow


def has_entry(connection: Connection, response_id: str, client: str) -> bool:
    """Whether the receipt of a response, or of a reversal, has an entry of this client."""
    return _has_entry(connection, col(ReceiptRow.response_id) == response_id, client)


def owns(connection: Connection, source: str, sequence: int, client: str) -> bool:
    """Whether the receipt or event of this number is one that a client may see.

    Args:
        connection: of `Database.read`; of a member is enough.
        source: "receipt" or "event".
        sequence: its number.
        client: the client's id.
    """
    if source == "receipt":
        return _has_entry(connection, col(ReceiptRow.sequence) == sequence, client)
    query = select(col(EventRow.kind), col(EventRow.subject)).where(col(EventRow.sequence) == sequence)
    row = connection.execute(query).one_or_none()
    if row is None:
        return False
    return bool(
        row.kind == SIGNING_KEY_ADDED or (row.kind == STATEMENT_KIND and row.subject.split("/")[1:] == [client])
    )


def _has_entry(connection: Connection, which: ColumnElement[bool], client: str) -> bool:
    joined = col(EntryRow.receipt_sequence) == col(ReceiptRow.sequence)
    query = select(col(EntryRow.account)).join_from(EntryRow, ReceiptRow, joined)
    return connection.execute(query.where(which, col(EntryRow.account) == client)).one_or_none() is not None
