"""Periods: one after the other without gap, each closed once, disputed or not, made final, paid.

Everything is read from and written to the events; nothing is ever changed. Knows when and over what to settle;
how is `rewards.settlement`'s business.

    clawbacks         what reversals booked now take back of earlier periods, in money
    errors            the error that carries a settlement
    explanation       why one client is paid what it is in a closed period, line by line
    history           what the events say of periods and holds, checked as it is read
    holds             holds: what is not to be paid for the time being, a client's payout or the credit of one response
    period_end        when a period is over, and which receipts belong to the next
    period_totals     what a period comes to: its receipts, less what is held and what is reversed
    policy_fit        whether a policy speaks of this ledger's clients and applications
    preparation       a settlement before it is written, and all that is written with it
    previews          what a preview shows, beside what it is compared with
    receipt_totals    receipts added up, whole windows by one query
    sampled_totals    sampled responses added up: what is pending, and what was measured beside it
    statement_bodies  what each client is told of a final period, paid or not
    transitions       preview, close, dispute, finalise, pay: the only writer of a period
"""

from __future__ import annotations

from rewards.ledger.ledger import Ledger
from rewards.periods.explanation import Explanation, explain
from rewards.periods.history import Period, open_window, read_history
from rewards.periods.previews import Preview
from rewards.periods.transitions import NAME, POSSIBLE, close, dispute, finalise, pay, preview

__all__ = [
    "NAME",
    "POSSIBLE",
    "Explanation",
    "Period",
    "Preview",
    "all",
    "close",
    "dispute",
    "explain",
    "finalise",
    "get",
    "open_window",
    "pay",
    "preview",
]


def get(ledger: Ledger, name: str) -> Period | None:
    """The closed period of that name as it stands; None when there is none.

    Raises:
        LedgerError: a stored settlement was altered; its period is named.
    """
    with ledger.database.read() as connection:
        return read_history(connection).find(name)


def all(ledger: Ledger) -> tuple[Period, ...]:  # noqa: A001 - read as `periods.all`
    """Every closed period as it stands, in their order.

    Raises:
        LedgerError: a stored settlement was altered; its period is named.
    """
    with ledger.database.read() as connection:
        return read_history(connection).periods
