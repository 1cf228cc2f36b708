"""A trend as columns: nothing is lost, however long it is, and there are neither too many nor too few."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from deployment.console.charts.timeline import LEAST_COLUMNS, MOST_COLUMNS, timeline
from rewards.views.standing import FIRST_WIDTH_US, MOST_BUCKETS, Trend

accounts = st.sampled_from(["bank", "clinic", "commons"])
buckets = st.dictionaries(
    st.integers(0, MOST_BUCKETS - 1), st.dictionaries(accounts, st.integers(-(10**9), 10**12), min_size=1), min_size=1
)


@given(buckets, st.integers(0, 12), st.integers(0, 10**6), st.integers(-5, 10**4))
def test_no_credit_is_lost(found: dict[int, dict[str, int]], doublings: int, begin: int, later: int) -> None:
    """Every account has in all columns what it has in all buckets, and each bucket is within one column."""
    width_us = FIRST_WIDTH_US * 2**doublings
    trend = Trend(width_us, {(begin + place) * width_us: credit for place, credit in sorted(found.items())})
    last_us = max(trend.buckets)

    columns = timeline(trend, last_us + later * FIRST_WIDTH_US)

    assert columns is not None
    assert LEAST_COLUMNS <= len(columns.starts_us) <= MOST_COLUMNS
    assert 0 == columns.width_us % width_us
    assert columns.starts_us[0] <= min(trend.buckets)
    assert columns.starts_us[-1] + columns.width_us > max(last_us, last_us + later * FIRST_WIDTH_US)
    steps = {after - before for before, after in pairwise(columns.starts_us)}
    assert steps == {columns.width_us}
    for account in ("bank", "clinic", "commons", "nobody"):
        whole = sum(credit.get(account, 0) for credit in trend.buckets.values())
        assert (whole, whole) == (columns.total(account), columns.running_total(account)[-1])
        for place, start_us in enumerate(columns.starts_us):
            end_us = start_us + columns.width_us
            within = [credit.get(account, 0) for at_us, credit in trend.buckets.items() if start_us <= at_us < end_us]
            assert sum(within) == columns.of(account)[place]


def test_nothing_booked_has_no_columns() -> None:
    """There is nothing to draw then."""
    assert None is timeline(Trend(), 10**15)


def test_several_accounts_can_share_a_series() -> None:
    """Column by column."""
    columns = timeline(Trend(buckets={0: {"bank": 1, "clinic": 2}, FIRST_WIDTH_US: {"bank": 4}}), 0)

    assert columns is not None
    assert (0, 3, 4) == columns.sum_of(["bank", "clinic"])[-3:]
