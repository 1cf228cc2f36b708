"""Which receipts are meant, of a period or of all time, and what they come to. Writes nothing; knows no policy.

A receipt counts in one period. A reversal that takes back from an earlier period is booked in a later one, where it is
settled in money and not in credit: it is none of the receipts whose credit that period has, and only `with_clawbacks`
one of those that it settles. So each reversal is of the receipts that exactly one period settles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select
from sqlalchemy.orm import Mapped
from sqlmodel import col

from rewards.periods import Period
from rewards.store import queries
from rewards.store.receipts import reversals_booked
from rewards.store.sums import exact_sum
from rewards.store.tables import EntryRow, ReceiptRow

LAST = 2**63 - 1
"""The largest sequence number there can be."""


@dataclass(frozen=True)
class Selection:
    """Receipts of a period or of all time, narrowed by what is given.

    Attributes:
        after: sequence number of the last receipt before the window.
        up_to: sequence number of the last receipt in it.
        excluded: numbers in the window that do not count.
        included: numbers before the window that count all the same.
        model: the consortium that answered, or the hash of its global model.
        applications: the names of the application that asked; empty where it has no receipts.
        kind: "response" or "reversal".
    """

    after: int = 0
    up_to: int = LAST
    excluded: frozenset[int] = frozenset()
    included: frozenset[int] = frozenset()
    model: str | None = None
    applications: tuple[str, ...] | None = None
    kind: str | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """What a receipt must have besides its number, as SQL."""
        conditions = []
        if self.model is not None:
            conditions.append(or_(col(ReceiptRow.consortium) == self.model, col(ReceiptRow.model_sha256) == self.model))
        if self.applications is not None:
            conditions.append(col(ReceiptRow.application).in_(self.applications))
        if self.kind is not None:
            conditions.append(col(ReceiptRow.kind) == self.kind)
        return conditions

    def holds(self, sequence: int) -> bool:
        """Whether a receipt of this number is of the period."""
        return sequence in self.included or (self.after < sequence <= self.up_to and sequence not in self.excluded)


@dataclass(frozen=True)
class ReceiptTotals:
    """What receipts come to: how many they are, their tokens, and micro-credits by account, in the order of names."""

    receipts: int
    tokens: int
    credit: Mapping[str, int]


def of_period(
    connection: Connection, period: Period, previous: Period | None, *, with_clawbacks: bool = False
) -> Selection:
    """The receipts that a closed period was settled by last: late arrivals in, held ones and later ones out."""
    after, up_to = period.window
    arrived = () if previous is None else previous.deferred
    left_out = frozenset(period.left_out)
    out = {sequence for sequence in (*period.deferred, *left_out) if after < sequence <= up_to}
    early = frozenset((*arrived, *period.taken_in)) - left_out - frozenset(period.deferred)
    if with_clawbacks:
        return Selection(after, up_to, frozenset(out), early)
    return _without_foreign_reversals(connection, after, up_to, frozenset(out), early)


def of_open_period(connection: Connection, last: Period | None, up_to: int | None = None) -> Selection:
    """The receipts booked since the last closed period, to the last one or `up_to`; of holds it knows nothing yet."""
    up_to = queries.last_sequence(connection, None) if up_to is None else up_to
    if last is None:
        return Selection(up_to=up_to)
    return _without_foreign_reversals(connection, last.window[1], up_to, frozenset(), frozenset(last.deferred))


def totals(connection: Connection, selection: Selection, account: str | None = None) -> ReceiptTotals:
    """What the receipts of a selection come to; of one account's credit where that is given.

    One pass over the window; memory for the accounts alone, and for the numbers that are named one by one.
    """
    window = range(selection.after + 1, selection.up_to + 1)
    total = _sums(connection, selection, window, account)
    for sign, sequences in ((-1, selection.excluded), (1, selection.included)):
        for some in queries.batches(sorted(sequences)):
            total = _add(total, _sums(connection, selection, some, account), sign)
    return total


def with_entry_of(query: Select[Any], account: str) -> Select[Any]:
    """The receipts of a query that give this account credit, or take some back."""
    joined = query.join(EntryRow, col(ReceiptRow.sequence) == col(EntryRow.receipt_sequence))
    return joined.where(col(EntryRow.account) == account, col(EntryRow.amount) != 0)


def condition_among(sequence: Mapped[int], sequences: Sequence[int]) -> ColumnElement[bool]:
    """The condition that a number is one of these: a range, or as few as one statement takes."""
    if isinstance(sequences, range):
        return sequence.between(sequences.start, sequences.stop - 1)
    return sequence.in_(sequences)


def reversals(connection: Connection, selection: Selection) -> Iterator[tuple[int, int]]:
    """(reversal, what it reverses) of each reversal of a selection, by sequence number."""
    booked = reversals_booked(connection, selection.after, selection.up_to, selection.included)
    return ((taking, taken) for taking, taken in booked if selection.holds(taking))


def _without_foreign_reversals(
    connection: Connection, after: int, up_to: int, excluded: frozenset[int], included: frozenset[int]
) -> Selection:
    """The selection without the reversals that take back from receipts which are not of it."""
    selection = Selection(after, up_to, excluded, included)
    foreign = {taking for taking, taken in reversals(connection, selection) if not selection.holds(taken)}
    out = {sequence for sequence in foreign if after < sequence <= up_to}
    return Selection(after, up_to, excluded | out, included - foreign)


def _sums(connection: Connection, selection: Selection, sequences: Sequence[int], account: str | None) -> ReceiptTotals:
    """Sums over the receipts of these numbers that meet the selection's conditions."""
    sequence = col(ReceiptRow.sequence)
    counted = select(func.count(), exact_sum(col(ReceiptRow.tokens)))
    counted = counted.where(condition_among(sequence, sequences), *selection.conditions)
    receipts, tokens = connection.execute(counted).one()
    if isinstance(sequences, range) and not selection.conditions and account is None:
        credit = queries.credit_between(connection, selection.after, selection.up_to)
        return ReceiptTotals(receipts, int(tokens or 0), credit)
    entry_of, owner = col(EntryRow.receipt_sequence), col(EntryRow.account)
    query = select(owner, exact_sum(col(EntryRow.amount))).where(condition_among(entry_of, sequences)).group_by(owner)
    if account is not None:
        query = query.where(owner == account)
    if selection.conditions:
        query = query.join_from(EntryRow, ReceiptRow, entry_of == sequence).where(*selection.conditions)
    credit = {name: int(amount) for name, amount in connection.execute(query.order_by(owner))}
    return ReceiptTotals(receipts, int(tokens or 0), credit)


def _add(first: ReceiptTotals, second: ReceiptTotals, sign: int) -> ReceiptTotals:
    credit = Counter(first.credit)
    for account, amount in second.credit.items():
        credit[account] += sign * amount
    return ReceiptTotals(
        receipts=first.receipts + sign * second.receipts,
        tokens=first.tokens + sign * second.tokens,
        credit=dict(sorted(credit.items())),
    )
