"""Who contributed what, added up once and then only caught up: figures for pages and scrapes that must be quick.

The ledger only grows, so that sums over what was read stay true, and a catch-up reads what was booked since: sums by
the database over chunks of receipts, each in a transaction of its own that holds nobody up. Reads only.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, literal_column, or_, select
from sqlmodel import col

from rewards.errors import LedgerError
from rewards.moments import SKEW_US
from rewards.periods import receipt_totals
from rewards.periods.history import last_closed, read_history
from rewards.store import queries
from rewards.store.database import Database, now_us
from rewards.store.sums import exact_sum
from rewards.store.tables import EntryRow, ReceiptRow
from rewards.views.selection import Selection, of_open_period, reversals, totals
from rewards.views.standing import NOTHING, ConsortiumTotals, OpenPeriod, Standing, Trend, add_amounts

CHUNK = 20_000
"""Receipts that are added up in one transaction."""


class Contribution:
    """A ledger's figures, caught up from any thread.

    Args:
        database: the ledger's.
        duration_bounds_us: upper bounds of `ConsortiumTotals.durations`, increasing, in microseconds.
    """

    def __init__(self, database: Database, duration_bounds_us: Sequence[int] = ()) -> None:
        self._database = database
        self._bounds_us = tuple(duration_bounds_us)
        self._catching_up = threading.Lock()
        self._read = Standing()
        self._last: str | None = None  # the payload and salt of the last receipt that was read
        self._now = self._read

    @property
    def now(self) -> Standing:
        """How things stood when the last catch-up ended; of an empty ledger before the first."""
        return self._now

    def catch_up(self) -> None:
        """Add what was booked, and closed, since. Readers see the old standing until this ends, and then the new one.

        One that fails leaves the old standing; the next goes on with the chunk at which it failed.

        Raises:
            LedgerError: the ledger cannot be read, or is another one than before, as after a backup was restored.
        """
        with self._catching_up:
            is_last = False
            while not is_last:
                with self._database.read() as connection:
                    _require_same(connection, self._read.sequence, self._last)
                    standing, is_last = _next(connection, self._read, self._bounds_us)
                    mark = _mark(connection, standing.sequence)
                self._read, self._last = standing, mark
            self._now = self._read


def _mark(connection: Connection, sequence: int) -> str | None:
    """What tells a receipt from any other of its number, in whatever ledger; None when there is none."""
    mark = col(ReceiptRow.payload_sha256) + col(ReceiptRow.salt)
    return connection.execute(select(mark).where(col(ReceiptRow.sequence) == sequence)).scalar_one_or_none()


def _require_same(connection: Connection, sequence: int, mark: str | None) -> None:
    """Refuse a ledger in which the last receipt that was read is no longer there, or is another one."""
    if _mark(connection, sequence) == mark:
        return
    last = queries.last_sequence(connection, None)
    what = f"ends with receipt {last}, and had {sequence} before" if last < sequence else f"has another {sequence}"
    raise LedgerError(f"the ledger {what}: it is another one; start again to read it from its beginning")


def _next(connection: Connection, standing: Standing, bounds_us: Sequence[int]) -> tuple[Standing, bool]:
    """The standing a chunk of receipts further on, and whether there are no more."""
    after, last = standing.sequence, queries.last_sequence(connection, None)
    if last_closed(connection) != standing.open.previous:
        standing = replace(standing, open=_open_period(connection, after))
    up_to = min(last, after + CHUNK)
    if after < standing.open.after:
        up_to = min(up_to, standing.open.after)  # a chunk lies on one side of a close
    if up_to > after:
        trend = _widen(connection, standing.trend)
        standing = _Chunk(connection, after, up_to, trend.width_us).add(replace(standing, trend=trend), bounds_us)
    return standing, up_to == last


def _open_period(connection: Connection, up_to: int) -> OpenPeriod:
    """The open period after a close, as far as receipts were read."""
    last = read_history(connection).periods[-1]  # whole, so that figures are not shown over a history that was altered
    selection = of_open_period(connection, last, up_to)
    sums = totals(connection, selection)
    return OpenPeriod(
        last.name, last.closed_at_us, selection.after, selection.included, sums.tokens, MappingProxyType(sums.credit)
    )


def _widen(connection: Connection, trend: Trend) -> Trend:
    """The trend with buckets long enough for whatever is booked by now."""
    booked, at_us = col(ReceiptRow.booked_at_us), now_us()
    first_us = connection.execute(select(func.min(booked))).scalar_one()
    last_us = connection.execute(select(func.max(booked)).where(booked <= at_us + SKEW_US)).scalar_one() or at_us
    return trend.widen(min(trend.buckets, default=min(first_us, at_us)), last_us)


def _display_time() -> ColumnElement[int]:
    """When a receipt was booked; now where its stamp is of a clock that was wrong, and still to come."""
    booked, at_us = col(ReceiptRow.booked_at_us), now_us()
    return case((booked > at_us + SKEW_US, at_us), else_=booked)


class _ChunkSums(NamedTuple):
    """What receipts of one consortium, kind, slot of `ConsortiumTotals.durations` and bucket of the trend come to."""

    consortium: str
    kind: str
    slot: int
    start_us: int
    receipts: int
    tokens: int
    duration_us: int
    last: int


@dataclass(frozen=True)
class _Chunk:
    """Receipts with after < sequence ≤ up_to, and how long a bucket of the trend is."""

    connection: Connection
    after: int
    up_to: int
    width_us: int

    def add(self, standing: Standing, bounds_us: Sequence[int]) -> Standing:
        """The standing with these receipts."""
        rows = self._rows(bounds_us)
        by_time = self._by_time(rows)
        credit = reduce(add_amounts, by_time.values(), NOTHING)
        models = dict(standing.models)
        for row in rows:
            models[row.consortium] = _add_row(models.get(row.consortium, ConsortiumTotals()), row, len(bounds_us) + 1)
        for (consortium, kind), amounts in self._by_model(rows, credit).items():
            models[consortium] = models[consortium].with_credit(kind, amounts)
        opened = self._open_period(standing.open, rows, credit)
        return Standing(self.up_to, MappingProxyType(models), opened, standing.trend.add(by_time))

    def _rows(self, bounds_us: Sequence[int]) -> list[_ChunkSums]:
        sequence, took_us = col(ReceiptRow.sequence), col(ReceiptRow.duration_us)
        slots = [(took_us <= bound_us, slot) for slot, bound_us in enumerate(bounds_us)]
        keys = [
            col(ReceiptRow.consortium).label("consortium"),
            col(ReceiptRow.kind).label("kind"),
            (case(*slots, else_=len(slots)) if slots else literal_column("0")).label("slot"),
            (_display_time() // self.width_us).label("bucket"),
        ]
        sums = func.count(), exact_sum(col(ReceiptRow.tokens)), exact_sum(took_us), func.max(sequence)
        query = select(*keys, *sums).where(sequence > self.after, sequence <= self.up_to)
        rows: Iterable[Any] = self.connection.execute(query.group_by("consortium", "kind", "slot", "bucket"))
        return [
            _ChunkSums(consortium, kind, slot, bucket * self.width_us, receipts, int(tokens), int(duration_us), last)
            for consortium, kind, slot, bucket, receipts, tokens, duration_us, last in rows
        ]

    def _by_time(self, rows: Sequence[_ChunkSums]) -> dict[int, Mapping[str, int]]:
        """Start of a bucket of the trend -> account -> micro-credits; of a wrong clock's stamps perhaps the next."""
        last = {row.start_us: row.last for row in sorted(rows, key=lambda row: row.last)}
        ends = dict(sorted(last.items(), key=lambda each: each[1]))
        begins = [self.after, *ends.values()]
        return {
            start_us: queries.credit_between(self.connection, after, end)
            for after, (start_us, end) in zip(begins, ends.items(), strict=False)
        }

    def _by_model(
        self, rows: Sequence[_ChunkSums], credit: Mapping[str, int]
    ) -> dict[tuple[str, str], Mapping[str, int]]:
        """(consortium, kind) -> account -> micro-credits.

        Most chunks hold the responses of one consortium, and theirs is the whole credit: no receipt is looked up.
        Where there is anything else, that is added up one by one, and theirs is what it leaves of the whole.
        """
        receipts: Counter[str] = Counter()
        for row in rows:
            receipts[row.consortium] += row.receipts * (row.kind == "response")
        usual = max(receipts, key=lambda consortium: receipts[consortium])
        credit_by_model: dict[tuple[str, str], Mapping[str, int]] = {}
        if any((row.consortium, row.kind) != (usual, "response") for row in rows):
            credit_by_model = self._unusual_credit(usual)
        left = Counter(credit)
        for amounts in credit_by_model.values():
            left.subtract(amounts)
        return {**credit_by_model, (usual, "response"): {account: amount for account, amount in left.items() if amount}}

    def _unusual_credit(self, usual: str) -> dict[tuple[str, str], Mapping[str, int]]:
        """(consortium, kind) -> account -> micro-credits of whatever is no response of the usual consortium."""
        consortium, kind, sequence = col(ReceiptRow.consortium), col(ReceiptRow.kind), col(ReceiptRow.sequence)
        keys = consortium, kind, col(EntryRow.account)
        query = (
            select(*keys, exact_sum(col(EntryRow.amount)))
            .join_from(ReceiptRow, EntryRow, col(EntryRow.receipt_sequence) == sequence)
            .where(sequence > self.after, sequence <= self.up_to, or_(consortium != usual, kind == "reversal"))
            .group_by(*keys)
        )
        credit: dict[tuple[str, str], dict[str, int]] = {}
        for name, of_kind, account, amount in self.connection.execute(query):
            if amount:
                credit.setdefault((name, of_kind), {})[account] = int(amount)
        return {**credit}

    def _open_period(self, opened: OpenPeriod, rows: Sequence[_ChunkSums], credit: Mapping[str, int]) -> OpenPeriod:
        """The open period with these receipts, but for reversals that take back from an earlier one."""
        if self.after < opened.after:
            return opened
        tokens = opened.tokens + sum(row.tokens for row in rows)
        credit = add_amounts(opened.credit, credit)
        if any(row.kind == "reversal" for row in rows):
            counts = Selection(after=opened.after, up_to=self.up_to, included=opened.arrived).holds
            own = Selection(after=self.after, up_to=self.up_to)
            foreign = [taking for taking, taken in reversals(self.connection, own) if not counts(taken)]
            taken_back = receipt_totals.receipts(self.connection, foreign, by_application=False)
            tokens -= taken_back.tokens.total()
            credit = add_amounts(credit, taken_back.accounts(), -1)
        return replace(opened, tokens=tokens, credit=credit)


def _add_row(totals: ConsortiumTotals, row: _ChunkSums, slots: int) -> ConsortiumTotals:
    if row.kind == "reversal":
        return totals.with_reversals(row.receipts, -row.tokens)
    return totals.with_responses(row.receipts, row.tokens, row.slot, slots, row.duration_us)
