"""Periods: one after the other without gap, previewed at will, closed once. The only writer of the periods table.

A period begins after the last receipt of the period closed before it. What is booked later belongs to the next one.
Knows when and over what to settle; how is `rewards.settlement`'s business.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select
from sqlmodel import col

from rewards.credit import MICRO_CREDITS_PER_TOKEN, canonical_bytes
from rewards.database import now_us
from rewards.errors import LedgerError, PeriodClosedError, PeriodEmptyError, PeriodError
from rewards.ledger import credit_between, last_sequence, tokens_between
from rewards.settlement import Settlement, settle
from rewards.tables import PeriodRow

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from rewards.ledger import Ledger
    from rewards.policy import Policy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Period:
    """A closed period. Both ends of its window are included; `closed_at_us` is microseconds since 1970."""

    name: str
    first_sequence: int
    last_sequence: int
    closed_at_us: int
    settlement: Settlement


def preview(ledger: Ledger, name: str, policy: Policy, until_us: int | None = None) -> Settlement:
    """What `close` would store at this moment. Writes nothing; raises what `close` raises."""
    with ledger.database.read() as connection:
        return _draft(connection, name, policy, until_us)


def close(ledger: Ledger, name: str, policy: Policy, until_us: int | None = None) -> Settlement:
    """Settle what was booked since the last closed period, and store it for ever. Of two closers one wins.

    Args:
        ledger: the ledger.
        name: letters, digits, dot, dash and underscore, at most 64, as in "2026-11".
        policy: what to settle by.
        until_us: leave what was booked at or after this moment (microseconds since 1970) to the next period.

    Raises:
        PeriodClosedError: the name is closed already; carries the stored settlement.
        PeriodEmptyError: nothing was booked in the window.
        PeriodError: the name is not valid.
        LedgerError: the entries of the window do not sum to its tokens; somebody wrote past the ledger.
    """
    with ledger.database.write() as connection:
        settlement = _draft(connection, name, policy, until_us)
        after, up_to = settlement.window
        row = {
            "name": name,
            "first_sequence": after + 1,
            "last_sequence": up_to,
            "closed_at_us": now_us(),
            "policy": canonical_bytes(policy.model_dump()).decode(),
            "settlement": canonical_bytes(settlement.to_document()).decode(),
            "settlement_sha256": settlement.sha256,
        }
        connection.execute(insert(PeriodRow).values(row))
    return settlement


def get(ledger: Ledger, name: str) -> Period | None:
    """The closed period of that name; None when there is none."""
    with ledger.database.read() as connection:
        return _find(connection, name)


def closed(ledger: Ledger) -> tuple[Period, ...]:
    """Every closed period, in the order of their windows."""
    with ledger.database.read() as connection:
        rows = connection.execute(select(PeriodRow).order_by(col(PeriodRow.first_sequence)))
        return tuple(_period(row) for row in rows)


def _draft(connection: Connection, name: str, policy: Policy, until_us: int | None) -> Settlement:
    if _NAME.fullmatch(name) is None:
        raise PeriodError(f"period name {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores")
    stored = _find(connection, name)
    if stored is not None:
        raise PeriodClosedError(
            f"period {name!r} is closed already (receipts {stored.first_sequence} to {stored.last_sequence})",
            stored.settlement,
        )
    after = connection.execute(select(func.max(col(PeriodRow.last_sequence)))).scalar_one() or 0
    up_to = last_sequence(connection, until_us)
    if up_to <= after:
        moment = "" if until_us is None else f" before {until_us} µs"
        raise PeriodEmptyError(f"period {name!r} is empty: nothing was booked since receipt {after}{moment}")
    credit = credit_between(connection, after, up_to)
    due = tokens_between(connection, after, up_to) * MICRO_CREDITS_PER_TOKEN
    if sum(credit.values()) != due:
        raise LedgerError(
            f"receipts {after + 1} to {up_to}: entries sum to {sum(credit.values())} micro-credits, tokens to {due}; "
            "somebody wrote past the ledger, period not settled"
        )
    return settle(name, credit, policy, (after, up_to))


def _find(connection: Connection, name: str) -> Period | None:
    row = connection.execute(select(PeriodRow).where(col(PeriodRow.name) == name)).one_or_none()
    return None if row is None else _period(row)


def _period(row: Row[Any]) -> Period:
    if sha256(row.settlement.encode()).hexdigest() != row.settlement_sha256:
        raise LedgerError(f"the stored settlement of period {row.name!r} does not match its hash; it was altered")
    settlement = Settlement.from_document(json.loads(row.settlement))
    return Period(row.name, row.first_sequence, row.last_sequence, row.closed_at_us, settlement)
