"""Which receipts are meant, of a period or of all time, and what they come to. Writes nothing; knows no policy.

A receipt counts in one period. A reversal that takes back from an earlier period is booked in a later one, where it is
settled in money and not in credit: it is of the later period, and in none of its sums.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import aliased
from sqlmodel import col

from rewards import reading
from rewards.periods.tally import batches
from rewards.tables import EntryRow, ReceiptRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import ColumnElement, Connection

    from rewards.periods import Period

LAST = 2**63 - 1
"""The largest sequence number there can be."""


@dataclass(frozen=True)
class Selection:
    """Receipts of a period or of all time, narrowed by what is given.

    Attributes:
        after, up_to: receipts with after < sequence ≤ up_to,
        excluded: but for these of them,
        included: and these before them.
        uncounted: reversals among them that count in no sum.
        consortium, application, kind: what a receipt must have.
    """

    after: int = 0
    up_to: int = LAST
    excluded: frozenset[int] = frozenset()
    included: frozenset[int] = frozenset()
    uncounted: frozenset[int] = frozenset()
    consortium: str | None = None
    application: str | None = None
    kind: str | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """What a receipt must have besides its number, as SQL."""
        wanted = {"consortium": self.consortium, "application": self.application, "kind": self.kind}
        return [col(getattr(ReceiptRow, name)) == value for name, value in wanted.items() if value is not None]

    def holds(self, sequence: int) -> bool:
        """Whether a receipt of this number is of the period."""
        return sequence in self.included or (self.after < sequence <= self.up_to and sequence not in self.excluded)


@dataclass(frozen=True)
class Totals:
    """What receipts come to: how many they are, their tokens, and micro-credits by account, in the order of names."""

    receipts: int
    tokens: int
    credit: Mapping[str, int]


def of_period(connection: Connection, period: Period, previous: Period | None) -> Selection:
    """The receipts of a closed period as it was settled last: late arrivals in, held ones and later ones out."""
    after, up_to = period.window
    arrived = () if previous is None else previous.deferred
    excluded = frozenset((*period.deferred, *period.left_out))
    return _selection(connection, after, up_to, excluded, frozenset((*arrived, *period.taken_in)))


def of_open_period(connection: Connection, last: Period | None) -> Selection:
    """The receipts booked since the last closed period, up to this moment; of holds it knows nothing yet."""
    up_to = reading.last_sequence(connection, None)
    if last is None:
        return Selection(up_to=up_to)
    return _selection(connection, last.window[1], up_to, frozenset(), frozenset(last.deferred))


def totals(connection: Connection, selection: Selection, account: str | None = None) -> Totals:
    """What the receipts of a selection come to; of one account's credit where that is given.

    One pass over the window; memory for the accounts alone.
    """
    accounts = reading.accounts(connection) if account is None else [account]
    uncounted = {sequence for sequence in selection.uncounted if sequence not in selection.included}
    found = _window(connection, selection, accounts)
    for sign, sequences in ((-1, selection.excluded | uncounted), (1, selection.included - selection.uncounted)):
        for some in batches(sorted(sequences)):
            found = _added(found, _named(connection, selection, accounts, some), sign)
    return found


def _selection(
    connection: Connection, after: int, up_to: int, excluded: frozenset[int], included: frozenset[int]
) -> Selection:
    found = Selection(after, up_to, excluded, included)
    reversal, original = aliased(ReceiptRow), aliased(ReceiptRow)
    sequence = col(reversal.sequence)
    pairs = select(sequence, col(original.sequence)).join_from(
        reversal, original, col(reversal.reverses) == col(original.response_id)
    )
    rows = list(connection.execute(pairs.where(sequence > after, sequence <= up_to)))
    for some in batches(sorted(included)):
        rows += connection.execute(pairs.where(sequence.in_(some)))
    uncounted = frozenset(taking for taking, taken in rows if found.holds(taking) and not found.holds(taken))
    return Selection(after, up_to, excluded, included, uncounted)


def _window(connection: Connection, selection: Selection, accounts: Iterable[str]) -> Totals:
    """Sums over the window, each account by its own range of the index `entries_by_account`."""
    sequence, entry_of = col(ReceiptRow.sequence), col(EntryRow.receipt_sequence)
    own = sequence > selection.after, sequence <= selection.up_to
    counted = select(func.count(), func.sum(col(ReceiptRow.tokens))).where(*own, *selection.conditions)
    receipts, tokens = connection.execute(counted).one()
    credit = {}
    for account in accounts:
        query = _joined(select(func.sum(col(EntryRow.amount))), selection)
        query = query.where(entry_of > selection.after, entry_of <= selection.up_to, col(EntryRow.account) == account)
        amount = connection.execute(query).scalar_one()
        if amount is not None:
            credit[account] = int(amount)
    return Totals(receipts, int(tokens or 0), credit)


def _named(connection: Connection, selection: Selection, accounts: Iterable[str], sequences: list[int]) -> Totals:
    """Sums over the receipts of these numbers, as many as one statement takes."""
    account = col(EntryRow.account)
    counted = select(func.count(), func.sum(col(ReceiptRow.tokens))).where(
        col(ReceiptRow.sequence).in_(sequences), *selection.conditions
    )
    receipts, tokens = connection.execute(counted).one()
    query = _joined(select(account, func.sum(col(EntryRow.amount))), selection)
    query = query.where(col(EntryRow.receipt_sequence).in_(sequences), account.in_(list(accounts))).group_by(account)
    credit = {name: int(amount) for name, amount in connection.execute(query)}
    return Totals(receipts, int(tokens or 0), credit)


def _joined(query: Select[*tuple[Any, ...]], selection: Selection) -> Select[*tuple[Any, ...]]:
    """The query over entries; receipts are asked only where something is wanted of them."""
    if not selection.conditions:
        return query.select_from(EntryRow)
    joined = query.join_from(EntryRow, ReceiptRow, col(EntryRow.receipt_sequence) == col(ReceiptRow.sequence))
    return joined.where(*selection.conditions)


def _added(first: Totals, second: Totals, sign: int) -> Totals:
    credit = Counter(first.credit)
    for account, amount in second.credit.items():
        credit[account] += sign * amount
    receipts, tokens = first.receipts + sign * second.receipts, first.tokens + sign * second.tokens
    return Totals(receipts, tokens, dict(sorted(credit.items())))
