"""Adding up receipts: whole windows by one query each, single receipts by their sequence numbers. Knows no period."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, select
from sqlmodel import col

from rewards.credit import PENDING
from rewards.settlement.pending import Stratum, StratumKey, add_strata
from rewards.store import queries
from rewards.store.sums import exact_sum
from rewards.store.tables import EntryRow, ReceiptRow

EVERY = ""
"""The application under which a tally stands that does not tell applications apart."""
_SIGN = case((col(EntryRow.amount) > 0, 1), (col(EntryRow.amount) < 0, -1), else_=0)


@dataclass
class Tally:
    """What some receipts come to; reversals count against it.

    Attributes:
        tokens: application -> generated tokens.
        credit: (application, account) -> micro-credits.
        receipts: account -> receipts that credit it; one that was reversed counts no more.
        strata: of sampled responses; none where nothing is pending.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    credit: Counter[tuple[str, str]] = field(default_factory=Counter)
    receipts: Counter[str] = field(default_factory=Counter)
    strata: dict[StratumKey, Stratum] = field(default_factory=dict)

    def add(self, other: Tally, sign: int = 1) -> None:
        """Count another tally in, or out with a sign of -1."""
        for own, others in ((self.tokens, other.tokens), (self.receipts, other.receipts)):
            for key, amount in others.items():
                own[key] += sign * amount
        for pair, amount in other.credit.items():
            self.credit[pair] += sign * amount
        add_strata(self.strata, other.strata, sign)

    def accounts(self) -> dict[str, int]:
        """Account -> micro-credits, of all applications together; pending where something is."""
        totals: Counter[str] = Counter()
        for (_, account), amount in self.credit.items():
            totals[account] += amount
        return {account: amount for account, amount in totals.items() if amount or account != PENDING}

    def by_application(self) -> dict[str, dict[str, int]]:
        """Application -> account -> micro-credits."""
        credit: dict[str, dict[str, int]] = {application: {} for application in self.tokens}
        for (application, account), amount in self.credit.items():
            if amount or account != PENDING:
                credit.setdefault(application, {})[account] = amount
        return credit


def window(connection: Connection, after: int, up_to: int, *, by_application: bool) -> Tally:
    """The receipts with after < sequence ≤ up_to; memory for accounts and applications, not for receipts."""
    if by_application:
        return _sum_by_application(connection, col(ReceiptRow.sequence).between(after + 1, up_to))
    total = Tally(Counter({EVERY: queries.tokens_between(connection, after, up_to)}))
    for account, amount, receipts in _sums(connection, after, up_to):
        total.credit[EVERY, account] = int(amount)
        total.receipts[account] = int(receipts)
    return total


def receipts(connection: Connection, sequences: Iterable[int], *, by_application: bool) -> Tally:
    """The receipts of these sequence numbers."""
    total = Tally()
    for some in queries.batches(sorted(sequences)):
        total.add(_sum_by_application(connection, col(ReceiptRow.sequence).in_(some)))
    if not by_application:
        total.tokens = Counter({EVERY: total.tokens.total()})
        total.credit = Counter({(EVERY, account): amount for account, amount in total.accounts().items()})
    return total


def entries_between(connection: Connection, after: int, up_to: int) -> int:
    """Sum of every entry with after < receipt sequence ≤ up_to, whosoever account it is on."""
    entry_of = col(EntryRow.receipt_sequence)
    total = select(exact_sum(col(EntryRow.amount))).where(entry_of > after, entry_of <= up_to)
    return int(connection.execute(total).scalar_one() or 0)


def _sum_by_application(connection: Connection, condition: ColumnElement[bool]) -> Tally:
    application, account = col(ReceiptRow.application), col(EntryRow.account)
    tokens = select(application, exact_sum(col(ReceiptRow.tokens))).where(condition).group_by(application)
    entries = (
        select(application, account, exact_sum(col(EntryRow.amount)), func.sum(_SIGN))
        .join_from(ReceiptRow, EntryRow, col(EntryRow.receipt_sequence) == col(ReceiptRow.sequence))
        .where(condition)
        .group_by(application, account)
    )
    total = Tally(Counter({name: int(amount) for name, amount in connection.execute(tokens)}))
    for name, credited, amount, receipts in connection.execute(entries):
        total.credit[name, credited] = int(amount)
        total.receipts[credited] += int(receipts)
    return total


def _sums(connection: Connection, after: int, up_to: int) -> Iterator[Any]:
    """(account, micro-credits, receipts that credit it less reversals) over a window, in one pass over its entries.

    PostgreSQL adds up in a hash table. SQLite would sort every entry first, so there each account that may be credited
    has its own range of the index `entries_by_account`.
    """
    account, sums = col(EntryRow.account), (exact_sum(col(EntryRow.amount)), func.sum(_SIGN))
    window = (col(EntryRow.receipt_sequence) > after, col(EntryRow.receipt_sequence) <= up_to)
    if connection.dialect.name != "sqlite":
        yield from connection.execute(select(account, *sums).where(*window).group_by(account))
        return
    for name in queries.accounts(connection):
        amount, receipts = connection.execute(select(*sums).where(account == name, *window)).one()
        if amount is not None:
            yield name, amount, receipts
