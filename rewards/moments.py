"""Moments that can be trusted, though clocks may be wrong: the ledger's own time, and stamps that nobody can have made.

A stamp that is later than now by more than a bound is of a clock that was wrong. It neither holds up what waits for a
time to pass nor is it handed on to what is written after it. Knows no receipt and no period.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.orm import Mapped

from rewards.settlement.policy import SKEW_MINUTES

SKEW_US = SKEW_MINUTES * 60_000_000
"""How far the ledger's clock may step back, or another's be ahead, where no policy says otherwise."""


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

    def made_us(self, created_at_us: int, booked_at_us: int) -> int | None:
        """When a receipt was made: as it says, or when it was booked where it says later; None when both are wrong."""
        if self.can_be(created_at_us) and created_at_us <= booked_at_us + self.skew_us:
            return created_at_us
        return booked_at_us if self.can_be(booked_at_us) else None

    def made_from(self, created_at: Mapped[int], booked_at: Mapped[int], moment_us: int) -> ColumnElement[bool]:
        """The condition that a receipt was made at that moment or later, as `made_us` has it."""
        latest_us = self.now_us + self.skew_us
        is_told = and_(created_at <= latest_us, created_at <= booked_at + self.skew_us)
        is_booked = and_(or_(created_at > latest_us, created_at > booked_at + self.skew_us), booked_at <= latest_us)
        return or_(and_(is_told, created_at >= moment_us), and_(is_booked, booked_at >= moment_us))
