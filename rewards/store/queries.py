"""Sums over receipts and entries, where they end, and lists cut to what a statement takes. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, String, and_, column, func, or_, select, values
from sqlalchemy.orm import Mapped
from sqlmodel import col

from rewards.credit import COMMONS, PENDING
from rewards.moments import Clock
from rewards.store import clients
from rewards.store.sums import exact_sum
from rewards.store.tables import EntryRow, ReceiptRow

_AT_ONCE = 500  # SQLite takes some thousands of parameters in a statement
Item = TypeVar("Item")


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in lists that are short enough for one statement."""
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def accounts(connection: Connection) -> list[str]:
    """Every account that may be booked to, in the order of names."""
    members = (member for each in clients.registrations(connection).values() for member in each)
    return sorted({COMMONS, PENDING, *members})


def credit_between(connection: Connection, after: int, up_to: int | None) -> dict[str, int]:
    """Account -> micro-credits over the receipts with after < sequence ≤ up_to, in the order of account names.

    Memory for the accounts alone, on both databases: PostgreSQL adds up in a hash table. SQLite would sort every entry
    first, so there each account has its own range of the index `entries_by_account`.
    """
    window = _window(col(EntryRow.receipt_sequence), after, up_to)
    account, total = col(EntryRow.account), exact_sum(col(EntryRow.amount))
    if connection.dialect.name == "sqlite":
        names = values(column("account", String), name="names").data([(name,) for name in accounts(connection)]).cte()
        of_name = select(total).where(account == names.c.account, *window).scalar_subquery()
        query = select(names.c.account, of_name)
    else:
        query = select(account, total).where(*window).group_by(account)
    credit = {name: int(amount) for name, amount in connection.execute(query) if amount is not None}
    return dict(sorted(credit.items()))


def tokens_between(connection: Connection, after: int, up_to: int | None) -> int:
    """Generated tokens, less those reversed, over the receipts with after < sequence ≤ up_to."""
    total = select(exact_sum(col(ReceiptRow.tokens))).where(*_window(col(ReceiptRow.sequence), after, up_to))
    return int(connection.execute(total).scalar_one() or 0)


def last_sequence(connection: Connection, before_us: int | None) -> int:
    """The last sequence number such that every receipt up to it was booked before that moment; 0 when none was.

    Booking times never decrease along the sequence.
    """
    sequence = col(ReceiptRow.sequence)
    if before_us is not None:
        booked_before = select(func.max(sequence)).where(col(ReceiptRow.booked_at_us) < before_us)
        return connection.execute(booked_before).scalar_one() or 0
    return connection.execute(select(func.max(sequence))).scalar_one() or 0


def booking_time_us(connection: Connection, sequence: int) -> int | None:
    """When the receipt of that number was booked, in microseconds since 1970; None when there is none."""
    booked = select(col(ReceiptRow.booked_at_us)).where(col(ReceiptRow.sequence) == sequence)
    return connection.execute(booked).scalar_one_or_none()


def _window(sequence: Mapped[Any], after: int, up_to: int | None) -> list[ColumnElement[bool]]:
    return [sequence > after] if up_to is None else [sequence > after, sequence <= up_to]


def condition_made_from(clock: Clock, moment_us: int) -> ColumnElement[bool]:
    """The condition that a receipt was made at that moment or later, as `Clock.time_made_us` has it."""
    created_at, booked_at = col(ReceiptRow.created_at_us), col(ReceiptRow.booked_at_us)
    latest_us = clock.now_us + clock.skew_us
    is_told = and_(created_at <= latest_us, created_at <= booked_at + clock.skew_us)
    is_booked = and_(or_(created_at > latest_us, created_at > booked_at + clock.skew_us), booked_at <= latest_us)
    return or_(and_(is_told, created_at >= moment_us), and_(is_booked, booked_at >= moment_us))
