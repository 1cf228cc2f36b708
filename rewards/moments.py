"""Moments that can be trusted, though clocks may be wrong: the ledger's own time, and stamps that nobody can have made.

A stamp that is later than now by more than a bound is of a clock that was wrong. It neither holds up what waits for a
time to pass nor is it handed on to what is written after it. Moments are whole microseconds since 1970 in UTC; this is
the one home of their arithmetic and of how people read them. Knows no receipt and no period.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAY_US = 24 * 3_600_000_000
SKEW_MINUTES = 10
"""How far a clock may be ahead where a policy does not say."""
SKEW_US = SKEW_MINUTES * 60_000_000
"""How far the ledger's clock may step back, or another's be ahead, where no policy says otherwise."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def date_of(moment_us: int) -> datetime:
    """A moment as a date in UTC, exact to the microsecond.

    Raises:
        OverflowError: calendars do not reach that far.
    """
    return _EPOCH + timedelta(microseconds=moment_us)


def moment_of(date: datetime) -> int:
    """A date as microseconds since 1970; one that names no zone is in UTC."""
    return (date.replace(tzinfo=date.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


def text_of(moment_us: int) -> str:
    """A moment as people read it: UTC, to the second begun."""
    try:
        return f"{date_of(moment_us):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:  # a policy may wait for longer than calendars reach
        return "a moment after the year 9999" if moment_us > 0 else "a moment before the year 1"


def month_end_us(name: str) -> int | None:
    """The first moment after a month that is spelled as in 2026-11; None of other words."""
    try:
        return moment_of((datetime.strptime(name, "%Y-%m").replace(tzinfo=UTC) + timedelta(days=31)).replace(day=1))
    except (ValueError, OverflowError):  # no month, or the last one that calendars reach
        return None


def stamp(now_us: int, last_us: int) -> int:
    """When something happens that follows what was stamped last: a clock that steps back does not turn history around.

    But a last stamp that is ahead by more than the bound was wrong, and is not repeated.
    """
    return last_us if now_us < last_us <= now_us + SKEW_US else now_us


@dataclass(frozen=True)
class Clock:
    """What stamps are held against.

    Attributes:
        now_us: the moment of whoever judges, in microseconds since 1970.
        skew_us: by how much a clock may be ahead.
    """

    now_us: int
    skew_us: int

    def can_be(self, at_us: int) -> bool:
        """Whether a clock that is right may have stamped this by now."""
        return at_us <= self.now_us + self.skew_us

    def time_made_us(self, created_at_us: int, booked_at_us: int) -> int | None:
        """When a receipt was made: as it says, or when it was booked where it says later; None when both are wrong."""
        if self.can_be(created_at_us) and created_at_us <= booked_at_us + self.skew_us:
            return created_at_us
        return booked_at_us if self.can_be(booked_at_us) else None
