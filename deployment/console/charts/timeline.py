"""A trend as the columns of a chart: few enough to be drawn, equally long, up to this moment. Knows no drawing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from rewards.views.standing import Trend

MOST_COLUMNS = 48
LEAST_COLUMNS = 12
"""So that the first minutes of a ledger are not one column as wide as the page."""


@dataclass(frozen=True)
class Timeline:
    """Micro-credits of each account over time.

    Attributes:
        starts_us: when each column begins, in microseconds since 1970.
        width_us: how long each is.
        credit: account -> its credit of each column.
    """

    starts_us: tuple[int, ...]
    width_us: int
    credit: Mapping[str, tuple[int, ...]]

    def total(self, account: str) -> int:
        """All that an account got."""
        return sum(self.of(account))

    def of(self, account: str) -> tuple[int, ...]:
        """An account's credit of each column; nothing where it never got any."""
        return self.credit.get(account, (0,) * len(self.starts_us))

    def running_total(self, account: str) -> tuple[int, ...]:
        """An account's credit of each column and all before it."""
        return tuple(accumulate(self.of(account)))

    def sum_of(self, accounts: Sequence[str]) -> tuple[int, ...]:
        """The credit of several accounts of each column."""
        return tuple(sum(column) for column in zip(*(self.of(account) for account in accounts), strict=True))


def timeline(trend: Trend, until_us: int) -> Timeline | None:
    """A trend as columns; None where nothing was ever booked.

    Args:
        trend: credit by buckets.
        until_us: the moment up to which time is shown, in microseconds since 1970.
    """
    if not trend.buckets:
        return None
    starts = list(trend.buckets)
    width_us, first, last = trend.width_us, starts[0], max(until_us, starts[-1])
    while last // width_us - first // width_us >= MOST_COLUMNS:
        width_us *= 2
    count = max(LEAST_COLUMNS, last // width_us - first // width_us + 1)
    begin = last // width_us - count + 1
    columns: list[Counter[str]] = [Counter() for _ in range(count)]
    for start_us, credit in trend.buckets.items():
        columns[start_us // width_us - begin].update(credit)
    accounts = sorted({account for credit in trend.buckets.values() for account in credit})
    return Timeline(
        starts_us=tuple((begin + number) * width_us for number in range(count)),
        width_us=width_us,
        credit={account: tuple(column[account] for column in columns) for account in accounts},
    )
