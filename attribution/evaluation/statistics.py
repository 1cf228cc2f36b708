"""Numbers about numbers: intervals, distances between shares, correlations, and the figures made of them.

Pure functions; does not know where the numbers come from.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from attribution.evaluation.results import Figure

_RESAMPLES = 2000
_Unit = Literal["proportion", "share", "ratio", "correlation", "nats", "seconds", "relative error"]
_Shares = Mapping[str, float] | None


@dataclass(frozen=True)
class ShareComparison:
    """Shares that were given beside the true ones, of the responses that have both.

    Attributes:
        distances: the total variation of each response.
        points: true share and given one of each client in each response.
    """

    distances: list[float]
    points: list[tuple[float, float]]

    @property
    def correlation(self) -> float | None:
        """Pearson's, over clients and responses alike; None where one of the two does not vary."""
        return pearson([true for true, _ in self.points], [given for _, given in self.points])


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); everything is possible where n = 0."""
    if n == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(values: Sequence[float], statistic: Callable[..., Any]) -> tuple[float, float]:
    """95 % percentile interval of a statistic over resamples of two or more values (Efron 1979), always the same.

    `statistic` is NumPy's, vectorised over `axis`.
    """
    result = stats.bootstrap((values,), statistic, n_resamples=_RESAMPLES, method="percentile", rng=0)
    interval = result.confidence_interval
    low, high = sorted((float(interval.low), float(interval.high)))  # between equal values, rounding may swap them
    return low, high


def total_variation(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Half of Σ |a − b| between two vectors of shares over the same names: 0 when equal, 1 when disjoint."""
    assert first.keys() == second.keys()
    return sum(abs(first[name] - second[name]) for name in first) / 2


def compare_shares(pairs: Iterable[tuple[_Shares, _Shares]]) -> ShareComparison:
    """Given and true shares of responses, compared; a response of which one is None, as nobody earned, is left out."""
    both = [(given, true) for given, true in pairs if given is not None and true is not None]
    return ShareComparison(
        [total_variation(given, true) for given, true in both],
        [(true[client], given[client]) for given, true in both for client in true],
    )


def positive_shares(scores: Mapping[str, float]) -> dict[str, float] | None:
    """Scores clipped at 0, to sum 1; None where nobody has a positive one."""
    whole = sum(max(score, 0.0) for score in scores.values())
    return {name: max(score, 0.0) / whole for name, score in scores.items()} if whole > 0 else None


def softmax_of(scores: Mapping[str, float]) -> dict[str, float]:
    """Softmax of scores (arXiv 2601.19672, eq. 10)."""
    most = max(scores.values())
    powers = {name: math.exp(score - most) for name, score in scores.items()}
    whole = sum(powers.values())
    return {name: power / whole for name, power in powers.items()}


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation; None where one of the two does not vary."""
    try:
        return statistics.correlation(x, y)
    except statistics.StatisticsError:
        return None


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's correlation; None where one of the two does not vary."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return float(stats.spearmanr(x, y).statistic)


def area_under_curve(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive value exceeds a negative one, ties half (Mann and Whitney 1947); ½ where one is empty."""
    if not positive or not negative:
        return 0.5
    above = stats.mannwhitneyu(positive, negative).statistic
    return float(above) / (len(positive) * len(negative))


def proportion(
    name: str, successes: int, n: int, *, chance: float | None = None, target: float | None = None, note: str = ""
) -> Figure:
    """A proportion with its Wilson interval; a target is reached from above."""
    low, high = wilson(successes, n)
    return Figure(
        name=name, value=successes / n if n else 0.0, n=n, unit="proportion", low=low, high=high, chance=chance,
        target=target, at_least=True, note=note if n else "nothing to count",
    )  # fmt: skip


def mean(
    name: str,
    values: Sequence[float],
    unit: _Unit,
    *,
    target: float | None = None,
    at_least: bool = False,
    note: str = "",
) -> Figure:
    """A mean with its bootstrap interval."""
    return _centre(name, values, unit, np.mean, target, at_least, note)


def median(
    name: str,
    values: Sequence[float],
    unit: _Unit,
    *,
    target: float | None = None,
    at_least: bool = False,
    note: str = "",
) -> Figure:
    """A median with its bootstrap interval."""
    return _centre(name, values, unit, np.median, target, at_least, note)


def _centre(
    name: str,
    values: Sequence[float],
    unit: _Unit,
    statistic: Callable[..., Any],
    target: float | None,
    at_least: bool,
    note: str,
) -> Figure:
    if not values:
        return Figure(name=name, value=0.0, n=0, unit=unit, target=target, at_least=at_least, note="nothing measured")
    low, high = bootstrap(values, statistic) if len(values) > 1 else (None, None)
    return Figure(
        name=name, value=float(statistic(values)), n=len(values), unit=unit, low=low, high=high, target=target,
        at_least=at_least, note=note,
    )  # fmt: skip
