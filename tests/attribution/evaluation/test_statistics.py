"""Numbers about numbers: known values, bounds, and no target met by having measured nothing."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attribution.evaluation.results import Figure
from attribution.evaluation.statistics import (
    area_under_curve,
    mean,
    median,
    pearson,
    positive_shares,
    proportion,
    rank_correlation,
    softmax_of,
    total_variation,
    wilson,
)

SCORES = st.dictionaries(st.sampled_from("abcdef"), st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1)


def test_wilson_is_the_published_interval():
    """652 of 660, the paper's backdoor result, has the interval 97.6 % to 99.4 %; nothing seen leaves all possible."""
    low, high = wilson(652, 660)

    assert (round(low, 3), round(high, 3)) == (0.976, 0.994)
    assert wilson(0, 0) == (0.0, 1.0)


@given(n=st.integers(1, 500), part=st.floats(0, 1))
def test_wilson_holds_the_proportion(n, part):
    """The interval lies within 0 and 1 and holds the proportion itself."""
    hits = round(part * n)
    low, high = wilson(hits, n)

    assert -1e-9 <= low <= hits / n + 1e-9
    assert hits / n - 1e-9 <= high <= 1 + 1e-9


@given(scores=SCORES)
def test_shares_of_scores_are_shares(scores):
    """Positive shares and softmax shares sum to 1 over the same names; where nobody is positive there are none."""
    shares = positive_shares(scores)

    assert (shares is None) == (sum(max(score, 0) for score in scores.values()) <= 0)
    for found in filter(None, (shares, softmax_of(scores))):
        assert found.keys() == scores.keys()
        assert math.isclose(sum(found.values()), 1, rel_tol=1e-9)
        assert min(found.values()) >= 0


def test_rank_correlation_goes_by_order_alone():
    """1 for whatever rises together, −1 for its reverse, and nothing where one side does not vary."""
    assert rank_correlation([1, 2, 3], [1, 10, 11]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, -5]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3], [4, 4, 4]) is None
    assert rank_correlation([], []) is None


def test_total_variation_is_zero_to_one():
    """Equal shares are 0 apart, disjoint ones 1, and the half-way point ½."""
    assert total_variation({"a": 1, "b": 0}, {"a": 1, "b": 0}) == 0
    assert total_variation({"a": 1, "b": 0}, {"a": 0, "b": 1}) == 1
    assert total_variation({"a": 1, "b": 0}, {"a": 0.5, "b": 0.5}) == 0.5


def test_correlations_and_areas_have_known_values():
    """A line correlates to 1, a constant to nothing; ties count half in the area under the curve."""
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert pearson([1, 1], [1, 2]) is None
    assert area_under_curve([2, 3], [1, 2]) == 0.875
    assert area_under_curve([], [1]) == 0.5


@pytest.mark.long
@example(values=[0.990218722925708] * 3)
@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_intervals_of_means_and_medians_hold_them(values):
    """The bootstrap interval lies within the values, and the same values give the same interval."""
    for figure in (mean("m", values, "share"), median("m", values, "share")):
        assert min(values) - 1e-12 <= figure.low <= figure.high <= max(values) + 1e-12
    assert mean("m", values, "share") == mean("m", values, "share")


@pytest.mark.parametrize(
    "figure",
    [
        mean("m", [], "share", target=0.5),
        median("m", [], "share", target=0.5, at_least=True),
        proportion("p", 0, 0, target=0.0),
        Figure(name="f", value=0.0, n=0, unit="ratio", target=1.0),
    ],
    ids=lambda figure: figure.name,
)
def test_nothing_measured_meets_no_target(figure):
    """A figure over no observations misses its target, from whichever side."""
    assert figure.ok is False


def test_a_target_is_met_from_its_side():
    """`at_least` is met from above, others from below, and without a target there is nothing to meet."""
    assert Figure(name="f", value=0.9, n=1, unit="share", target=0.9, at_least=True).ok is True
    assert Figure(name="f", value=0.89, n=1, unit="share", target=0.9, at_least=True).ok is False
    assert Figure(name="f", value=0.9, n=1, unit="share", target=0.9).ok is True
    assert Figure(name="f", value=0.91, n=1, unit="share", target=0.9).ok is False
    assert Figure(name="f", value=0.9, n=1, unit="share").ok is None
