"""Numbers about numbers: intervals, distances between shares, correlations, and the figures made of them.

Pure functions; does not know where the numbers come from.
"""

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from attribution.evaluation.results import Figure

__all__ = [
    "area_under_curve",
    "bootstrap",
    "mean",
    "median",
    "pearson",
    "positive_shares",
    "proportion",
    "softmax_of",
    "total_variation",
    "wilson",
]

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_RESAMPLES = 2000
_Unit = Literal["proportion", "share", "ratio", "correlation", "nats", "seconds", "relative error"]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); everything is possible where n = 0."""
    if n == 0:
        return 0.0, 1.0
    p, spread = successes / n, _Z * _Z / n
    centre = (p + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
    values: Sequence[float], statistic: Callable[[Sequence[float]], float] = statistics.fmean
) -> tuple[float, float]:
    """95 % percentile interval of a statistic over resamples of `values` (Efron 1979), the same for the same values."""
    chance = random.Random(0)  # noqa: S311 - statistics, not secrets
    draws = sorted(statistic(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return draws[int(0.025 * _RESAMPLES)], draws[int(0.975 * _RESAMPLES) - 1]


def total_variation(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Half of Σ |a − b| between two vectors of shares over the same names: 0 when equal, 1 when disjoint."""
    assert first.keys() == second.keys()
    return sum(abs(first[name] - second[name]) for name in first) / 2


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


def area_under_curve(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive value exceeds a negative one, ties half (Mann and Whitney 1947); ½ where one is empty."""
    if not positive or not negative:
        return 0.5
    above = sum((a > b) + (a == b) / 2 for a in positive for b in negative)
    return above / (len(positive) * len(negative))


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
    return _centre(name, values, unit, statistics.fmean, target, at_least, note)


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
    return _centre(name, values, unit, statistics.median, target, at_least, note)


def _centre(
    name: str,
    values: Sequence[float],
    unit: _Unit,
    statistic: Callable[[Sequence[float]], float],
    target: float | None,
    at_least: bool,
    note: str,
) -> Figure:
    if not values:
        return Figure(name=name, value=0.0, n=0, unit=unit, note="nothing to average")
    low, high = bootstrap(values, statistic) if len(values) > 1 else (None, None)
    return Figure(
        name=name, value=statistic(values), n=len(values), unit=unit, low=low, high=high, target=target,
        at_least=at_least, note=note,
    )  # fmt: skip
