"""Periods: one after the other without gap, each closed once, disputed or not, made final, paid.

Everything is read from and written to the book of events; nothing is ever changed. Knows when and over what to settle;
how is `rewards.settlement`'s business.

    book        what the events say of periods and holds
    window      where a period ends, and what booked before that belongs to the next
    contents    what its receipts come to: holds, reversals, late receipts
    clawbacks   what reversals take back of earlier periods, in money
    settling    all of that as a settlement that is not written yet
    tally       adding up receipts
    fitting     whether a policy speaks of this ledger
    bodies      what each client is told of a final period
    moves       preview, close, dispute, finalise, pay
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rewards.periods import book
from rewards.periods.book import Period, open_window
from rewards.periods.moves import NAME, POSSIBLE, Preview, close, dispute, finalise, pay, preview

if TYPE_CHECKING:
    from rewards.ledger import Ledger

__all__ = [
    "NAME",
    "POSSIBLE",
    "Period",
    "Preview",
    "all",
    "close",
    "dispute",
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
        return book.read(connection).find(name)


def all(ledger: Ledger) -> tuple[Period, ...]:  # noqa: A001 - read as `periods.all`
    """Every closed period as it stands, in their order.

    Raises:
        LedgerError: a stored settlement was altered; its period is named.
    """
    with ledger.database.read() as connection:
        return book.read(connection).periods
