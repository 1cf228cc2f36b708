"""Which receipts a new period is made of: where its window ends, and what of it belongs to the next. Settles nothing.

A period ends at a moment. What was made before it but booked up to some grace hours later is still in; what was made
after it is not, even if it was booked in between. Such receipts are named one by one, as they are few: the window
itself ends with the last receipt that belongs to the period.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import or_, select
from sqlmodel import col

from rewards import reading
from rewards.database import now_us
from rewards.errors import PeriodError
from rewards.tables import ReceiptRow

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rewards.periods.book import Period

HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Frame:
    """The receipts of a period by sequence number.

    Attributes:
        after: the last receipt of the window before.
        up_to: the last receipt of this window.
        until_us: the moment the period ends, in microseconds since 1970.
        deferred: those of the window that count in the next period.
        arrived: those before the window that the period before deferred to this one.
        late_us: what was made before this moment is late: the period before had ended already; 0 in the first.
    """

    after: int
    up_to: int
    until_us: int
    deferred: tuple[int, ...]
    arrived: tuple[int, ...]
    late_us: int


def freeze(connection: Connection, previous: Period | None, grace_hours: int, until_us: int | None) -> Frame:
    """The frame of the period that follows `previous`, if it is closed at this moment.

    Raises:
        PeriodError: `until_us` is not after the end of the previous period, or its grace hours are not over.
    """
    after, late_us, arrived = (0, 0, ()) if previous is None else _end(previous)
    if until_us is None:
        last = reading.last_sequence(connection, None)
        # A clock that stepped back must not make what is booked look as if it were made in the future.
        until_us = max(now_us(), late_us, _booked_at_us(connection, last)) + 1
    else:
        _require_over(until_us, grace_hours, late_us)
        last = reading.last_sequence(connection, until_us + grace_hours * HOUR_US)
    deferred = _made_after(connection, after, last, until_us)
    up_to = max(last, after)
    while up_to > after and deferred and deferred[-1] == up_to:
        deferred.pop()
        up_to -= 1
    return Frame(after, up_to, until_us, tuple(deferred), arrived, late_us)


def refreeze(period: Period, previous: Period | None) -> Frame:
    """The frame that a closed period was given."""
    _, late_us, arrived = (0, 0, ()) if previous is None else _end(previous)
    return Frame(*period.window, period.until_us, period.deferred, arrived, late_us)


def shown(moment_us: int) -> str:
    """A moment as errors name it: UTC, to the second."""
    try:
        return datetime.fromtimestamp(moment_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # a policy may wait for longer than calendars reach
        return f"{moment_us} µs after 1970"


def _end(previous: Period) -> tuple[int, int, tuple[int, ...]]:
    return previous.window[1], previous.until_us, previous.deferred


def _booked_at_us(connection: Connection, sequence: int) -> int:
    query = select(col(ReceiptRow.booked_at_us)).where(col(ReceiptRow.sequence) == sequence)
    return connection.execute(query).scalar_one_or_none() or 0


def _require_over(until_us: int, grace_hours: int, late_us: int) -> None:
    if 0 < late_us >= until_us:
        raise PeriodError(f"a period cannot end at {shown(until_us)}: the one before it ends at {shown(late_us)}")
    closes_us = until_us + grace_hours * HOUR_US
    if now_us() < closes_us:
        grace = f" and has {grace_hours} hours of grace" if grace_hours else ""
        raise PeriodError(f"the period ends at {shown(until_us)}{grace}: it can be closed from {shown(closes_us)} on")


def _made_after(connection: Connection, after: int, up_to: int, until_us: int) -> list[int]:
    """Receipts of the window made at or after a moment, each with the reversal that goes with it, in their order."""
    sequence = col(ReceiptRow.sequence)
    window = (sequence > after, sequence <= up_to)
    is_after = col(ReceiptRow.created_at_us) >= until_us
    responses = select(col(ReceiptRow.response_id)).where(*window, is_after)
    query = select(sequence).where(*window, or_(is_after, col(ReceiptRow.reverses).in_(responses)))
    return list(connection.execute(query.order_by(sequence)).scalars())
