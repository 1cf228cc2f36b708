"""How the books fare, for whoever watches them: what was booked last, what is sealed and what is not. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Mapped
from sqlmodel import col

from rewards.log import checkpoints, sealer
from rewards.moments import SKEW_US
from rewards.store import events, queries
from rewards.store.tables import EventRow, ReceiptRow


@dataclass(frozen=True)
class Condition:
    """The books at one moment; times are in microseconds since 1970, and 0 where there is none.

    Attributes:
        booked_at_us: when the last receipt was booked.
        sealed: receipts and events under the last checkpoint.
        sealed_at_us: when that was signed.
        unsealed: receipts and events that no checkpoint covers.
        unsealed_since_us: when the oldest of these was booked.
    """

    booked_at_us: int
    sealed: int
    sealed_at_us: int
    unsealed: int
    unsealed_since_us: int


@dataclass(frozen=True)
class Response:
    """A response as it was booked: in which consortium, when, and how long it took; in microseconds."""

    response_id: str
    consortium: str
    booked_at_us: int
    duration_us: int


def condition(connection: Connection) -> Condition:
    """How the books fare; a few look-ups, however big they are, since receipts and events are sealed in their order."""
    checkpoint = checkpoints.latest_checkpoint(connection)
    receipts, happenings = sealer.count_unsealed(connection)
    last, last_event = queries.last_sequence(connection, None), events.last_event(connection)
    booked_us = _at(connection, col(ReceiptRow.booked_at_us), col(ReceiptRow.sequence), last)
    oldest_us = (
        _at(connection, col(ReceiptRow.booked_at_us), col(ReceiptRow.sequence), last - receipts + 1),
        _at(connection, col(EventRow.at_us), col(EventRow.sequence), last_event - happenings + 1),
    )
    return Condition(
        booked_at_us=booked_us or 0,
        sealed=0 if checkpoint is None else checkpoint.size,
        sealed_at_us=0 if checkpoint is None else checkpoint.sealed_at_us,
        unsealed=receipts + happenings,
        unsealed_since_us=min((moment for moment in oldest_us if moment is not None), default=0),
    )


def count_misdated(connection: Connection, after: int, up_to: int) -> int:
    """How many receipts with after < sequence ≤ up_to say that they were made long after they were booked.

    Their clock was wrong; they count as made when they were booked.
    """
    sequence = col(ReceiptRow.sequence)
    is_ahead = col(ReceiptRow.created_at_us) > col(ReceiptRow.booked_at_us) + SKEW_US
    query = select(func.count()).where(sequence > after, sequence <= up_to, is_ahead)
    return connection.execute(query.select_from(ReceiptRow)).scalar_one()


def last_responses(connection: Connection, after: int, limit: int) -> list[Response]:
    """At most `limit` responses booked after a sequence number, the last ones, in the order of booking."""
    sequence = col(ReceiptRow.sequence)
    query = (
        select(
            col(ReceiptRow.response_id),
            col(ReceiptRow.consortium),
            col(ReceiptRow.booked_at_us),
            col(ReceiptRow.duration_us),
        )
        .where(sequence > after, col(ReceiptRow.kind) == "response")
        .order_by(sequence.desc())
        .limit(limit)
    )
    return [Response(*row) for row in connection.execute(query)][::-1]


def _at(connection: Connection, moment_us: Mapped[int], sequence: Mapped[int], number: int) -> int | None:
    """When the row of a sequence number was written; None when there is none."""
    return connection.execute(select(moment_us).where(sequence == number)).scalar_one_or_none()
