"""How contribution stands after one receipt: immutable figures, and how they add up. Knows no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

FIRST_WIDTH_US = 60_000_000
"""How long a bucket of the trend is in a young ledger."""
MOST_BUCKETS = 400
"""How many buckets the trend spans at most; when they would be more, each becomes twice as long."""
NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True)
class ConsortiumTotals:
    """Everything that was ever booked in one consortium. Only grows: what was reversed stands beside what was booked.

    Attributes:
        receipts: responses booked.
        tokens: generated tokens of theirs.
        credit: account -> micro-credits of theirs; an account without any may be missing.
        reversals: responses that were reversed.
        reversed_tokens: tokens of these.
        reversed_credit: account -> micro-credits of these, positive.
        durations: responses by how long they took: up to the first bound, above it and up to the second, …, above all.
        duration_us: how long all of them took together, in microseconds.
    """

    receipts: int = 0
    tokens: int = 0
    credit: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    reversals: int = 0
    reversed_tokens: int = 0
    reversed_credit: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    durations: tuple[int, ...] = ()
    duration_us: int = 0

    def with_responses(self, receipts: int, tokens: int, slot: int, slots: int, duration_us: int) -> ConsortiumTotals:
        """These and more responses, all of one slot of `durations`."""
        durations = [*(self.durations or [0] * slots)]
        durations[slot] += receipts
        return replace(
            self,
            receipts=self.receipts + receipts,
            tokens=self.tokens + tokens,
            durations=tuple(durations),
            duration_us=self.duration_us + duration_us,
        )

    def with_reversals(self, reversals: int, tokens: int) -> ConsortiumTotals:
        """These and more reversals, of so many tokens: a positive number."""
        return replace(self, reversals=self.reversals + reversals, reversed_tokens=self.reversed_tokens + tokens)

    def with_credit(self, kind: str, amounts: Mapping[str, int]) -> ConsortiumTotals:
        """These and the amounts of more receipts of a kind: "response", or "reversal", whose amounts are negative."""
        if kind == "reversal":
            return replace(self, reversed_credit=add_amounts(self.reversed_credit, amounts, -1))
        return replace(self, credit=add_amounts(self.credit, amounts))


@dataclass(frozen=True)
class OpenPeriod:
    """What counts in the period that would be closed next, before any hold.

    Attributes:
        previous: name of the last closed period; None before the first.
        opened_at_us: when that was closed, in microseconds since 1970; None before the first.
        after: the last receipt of its window.
        arrived: receipts of its window that count here.
        tokens: generated tokens, less those reversed.
        credit: account -> micro-credits, less those reversed.
    """

    previous: str | None = None
    opened_at_us: int | None = None
    after: int = 0
    arrived: frozenset[int] = frozenset()
    tokens: int = 0
    credit: Mapping[str, int] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True)
class Trend:
    """Credit over the ledger's whole life by when it was booked.

    Attributes:
        width_us: how long each bucket is: 60 s, or that doubled as often as it takes for at most `MOST_BUCKETS`.
        buckets: start in microseconds since 1970, a multiple of the width -> account -> micro-credits booked from then
            until the next start, less those reversed in that time. In the order of time; without the empty ones.
    """

    width_us: int = FIRST_WIDTH_US
    buckets: Mapping[int, Mapping[str, int]] = field(default_factory=lambda: NOTHING)

    def widen(self, first_us: int, last_us: int) -> Trend:
        """The same with buckets that are long enough for all that was booked between two moments."""
        width_us = self.width_us
        while last_us // width_us - first_us // width_us >= MOST_BUCKETS:
            width_us *= 2
        if width_us == self.width_us:
            return self
        buckets: dict[int, Mapping[str, int]] = {}
        for narrow_us, credit in self.buckets.items():
            start_us = narrow_us // width_us * width_us
            buckets[start_us] = add_amounts(buckets.get(start_us, NOTHING), credit)
        return Trend(width_us, MappingProxyType(buckets))

    def add(self, credit: Mapping[int, Mapping[str, int]]) -> Trend:
        """The same with more credit, by the starts of its buckets."""
        buckets = dict(self.buckets)
        for start_us, amounts in credit.items():
            buckets[start_us] = add_amounts(buckets.get(start_us, NOTHING), amounts)
        return replace(self, buckets=MappingProxyType(dict(sorted(buckets.items()))))


@dataclass(frozen=True)
class Standing:
    """How things stood after one receipt. Never changes.

    Attributes:
        sequence: that receipt; 0 is an empty ledger.
        models: consortium -> its totals; without those that booked nothing.
        open: the open period.
        trend: credit over time.
    """

    sequence: int = 0
    models: Mapping[str, ConsortiumTotals] = field(default_factory=lambda: NOTHING)
    open: OpenPeriod = OpenPeriod()
    trend: Trend = Trend()


def add_amounts(first: Mapping[str, int], second: Mapping[str, int], sign: int = 1) -> Mapping[str, int]:
    """Account -> both amounts together, in the order of names."""
    accounts = sorted(first.keys() | second.keys())
    return MappingProxyType({account: first.get(account, 0) + sign * second.get(account, 0) for account in accounts})
