"""When a period is over, and which receipts it is made of: what is booked in it may be the next one's.

A period ends at a moment. What was made before it but booked up to some grace hours later is still in, and what was
booked later than that is the next period's, marked as late. What was made at the end or after it belongs to the period
in which it was made, however many are closed before that: whatever was booked between is named (`deferred`) and handed
on from period to period. Those are few: the window itself ends with the last receipt that belongs to the period.

When a receipt was made, it says itself; where clocks were wrong, `rewards.moments` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import ColumnElement, Connection, and_, func, select
from sqlmodel import col

from rewards.errors import PeriodError
from rewards.moments import Clock, text_of
from rewards.periods.history import Period
from rewards.settlement.policy import Policy
from rewards.store import queries
from rewards.store.database import now_us
from rewards.store.queries import condition_made_from
from rewards.store.tables import EventRow, ReceiptRow

HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class PeriodFrame:
    """The receipts of a period by sequence number.

    Attributes:
        after: the last receipt of the window before.
        up_to: the last receipt of this window.
        until_us: the moment the period ends, in microseconds since 1970.
        deferred: those of the window, and of those that arrived, that count in a later period.
        arrived: those before the window that the period before deferred.
        late_us: what was made before this moment is late: the period before had ended already; 0 in the first, and
            where the end of the one before is a moment that was still to come when this one was frozen.
        as_of_us: when it was frozen; None of periods that were closed before this was noted.
    """

    after: int
    up_to: int
    until_us: int
    deferred: tuple[int, ...]
    arrived: tuple[int, ...]
    late_us: int
    as_of_us: int | None

    def holds(self, sequence: int) -> bool:
        """Whether a receipt of this number counts here, if nothing else stands against it."""
        is_candidate = self.after < sequence <= self.up_to or sequence in self._arrived_numbers
        return is_candidate and sequence not in self._deferred_numbers

    @property
    def arrivals(self) -> frozenset[int]:
        """Receipts before the window that count here."""
        return self._arrived_numbers - self._deferred_numbers

    @property
    def departures(self) -> frozenset[int]:
        """Receipts of the window that count in a later period."""
        return frozenset(each for each in self.deferred if self.after < each <= self.up_to)

    @cached_property
    def _arrived_numbers(self) -> frozenset[int]:
        return frozenset(self.arrived)

    @cached_property
    def _deferred_numbers(self) -> frozenset[int]:
        return frozenset(self.deferred)


def freeze(
    connection: Connection, previous: Period | None, policy: Policy, until_us: int | None, at_us: int | None = None
) -> PeriodFrame:
    """The frame of the period that follows `previous`, if it is closed at this moment, or at one that is rehearsed.

    Raises:
        PeriodError: `until_us` is not after the end of the previous period, or its grace hours are not over.
    """
    clock = Clock(now_us(connection) if at_us is None else at_us, policy.skew_us)
    after, late_us, arrived = _end(previous, clock)
    if until_us is None:
        last = queries.last_sequence(connection, None)
        # A clock that stepped back must not make what is booked look as if it were made in the future.
        until_us = max(clock.now_us, late_us, _latest(connection, clock)) + 1
    else:
        _require_over(until_us, policy.grace_hours, late_us, clock.now_us)
        last = _last_in_time(connection, clock, until_us, until_us + policy.grace_hours * HOUR_US)
    up_to = max(last, after)
    deferred = _find_made_after(connection, clock, after, up_to, arrived, until_us)
    while up_to > after and deferred and deferred[-1] == up_to:
        deferred.pop()
        up_to -= 1
    return PeriodFrame(after, up_to, until_us, tuple(deferred), arrived, late_us, clock.now_us)


def refreeze(period: Period, previous: Period | None) -> PeriodFrame:
    """The frame that a closed period was given."""
    as_of_us = period.as_of_us
    clock = None if as_of_us is None else Clock(as_of_us, period.draft.policy.skew_us)
    _, late_us, arrived = _end(previous, clock)
    return PeriodFrame(*period.window, period.until_us, period.deferred, arrived, late_us, as_of_us)


def time_closed_us(connection: Connection, period: Period, clock: Clock) -> int:
    """When a period was closed; where a wrong clock says a moment to come, the first right stamp after it.

    Where nothing has happened since, it is the last right stamp before: what a wrong clock wrote bars nobody for long.
    """
    if clock.can_be(period.closed_at_us):
        return period.closed_at_us
    latest_us = clock.now_us + clock.skew_us
    stamps = (
        (col(EventRow.at_us), col(EventRow.sequence), period.moves[0].sequence),
        (col(ReceiptRow.booked_at_us), col(ReceiptRow.sequence), period.window[1]),
    )
    later = [select(func.min(at)).where(at <= latest_us, sequence > last) for at, sequence, last in stamps]
    before = [select(func.max(at)).where(at <= latest_us, sequence <= last) for at, sequence, last in stamps]
    moments = [moment for query in later if (moment := connection.execute(query).scalar_one()) is not None]
    return min(moments) if moments else max(connection.execute(query).scalar_one() or 0 for query in before)


def _end(previous: Period | None, clock: Clock | None) -> tuple[int, int, tuple[int, ...]]:
    if previous is None:
        return 0, 0, ()
    is_over = clock is None or clock.can_be(previous.until_us)
    return previous.window[1], previous.until_us if is_over else 0, previous.deferred


def _latest(connection: Connection, clock: Clock) -> int:
    """The last booking time that a clock that is right may have stamped; 0 when there is none."""
    booked = col(ReceiptRow.booked_at_us)
    query = select(func.max(booked)).where(booked <= clock.now_us + clock.skew_us)
    return connection.execute(query).scalar_one() or 0


def _last_in_time(connection: Connection, clock: Clock, until_us: int, closes_us: int) -> int:
    """The last receipt that was booked before a moment; of one that is stamped wrong, made before the period's end."""
    sequence, booked = col(ReceiptRow.sequence), col(ReceiptRow.booked_at_us)
    in_time = queries.last_sequence(connection, closes_us)
    is_wrong = and_(booked > clock.now_us + clock.skew_us, col(ReceiptRow.created_at_us) < until_us)
    return max(in_time, connection.execute(select(func.max(sequence)).where(is_wrong)).scalar_one() or 0)


def _require_over(until_us: int, grace_hours: int, late_us: int, at_us: int) -> None:
    if 0 < late_us >= until_us:
        raise PeriodError(f"a period cannot end at {text_of(until_us)}: the one before it ends at {text_of(late_us)}")
    closes_us = until_us + grace_hours * HOUR_US
    if at_us < closes_us:
        grace = f" and has {grace_hours} hours of grace" if grace_hours else ""
        raise PeriodError(
            f"the period ends at {text_of(until_us)}{grace}: it can be closed from {text_of(closes_us)} on"
        )


def _find_made_after(
    connection: Connection, clock: Clock, after: int, up_to: int, arrived: Iterable[int], until_us: int
) -> list[int]:
    """Candidates made at or after a moment, each with the reversal that goes with it, in their order."""
    sequence = col(ReceiptRow.sequence)
    is_after = condition_made_from(clock, until_us)
    in_window = and_(sequence > after, sequence <= up_to)
    conditions: list[ColumnElement[bool]] = [in_window]
    conditions += [sequence.in_(some) for some in queries.batches(sorted(arrived))]
    sequences: set[int] = set()
    for condition in conditions:
        sequences.update(connection.execute(select(sequence).where(condition, is_after)).scalars())
        responses = select(col(ReceiptRow.response_id)).where(condition, is_after)
        with_them = col(ReceiptRow.reverses).in_(responses)
        for other in conditions:
            sequences.update(connection.execute(select(sequence).where(other, with_them)).scalars())
    return sorted(sequences)
