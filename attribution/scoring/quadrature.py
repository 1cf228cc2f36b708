"""At how many points between the base and the global model slopes are taken, and with which weights they are summed.

Gauss–Legendre rules: n points are exact for polynomials up to degree 2n − 1, so few are enough where the
log-probability bends little on its way. Where it bends more, points are added to the three of the first rule, and none
was taken in vain: 7 points are exact up to degree 11 and 15 up to degree 23 (T. N. L. Patterson, The optimum addition
of points to quadrature formulae, Mathematics of Computation 22, 1968). Knows no model, and nothing of torch.
"""

from dataclasses import dataclass

import numpy as np

_NESTED = (
    {0.0: 0.88888888888888889, 0.77459666924148338: 0.55555555555555556},
    {
        0.0: 0.45091653865847414,
        0.43424374934680256: 0.40139741477596222,
        0.77459666924148338: 0.26848808986833344,
        0.96049126870802028: 0.10465622602646727,
    },
    {
        0.0: 0.22551049979820669,
        0.22338668642896688: 0.21915685840158750,
        0.43424374934680256: 0.20062852937698902,
        0.62110294673722640: 0.17151190913639138,
        0.77459666924148338: 0.13441525524378422,
        0.88845923287225700: 0.09292719531512454,
        0.96049126870802028: 0.05160328299707974,
        0.99383196321275502: 0.01700171962994026,
    },
)
"""Points of [−1, 1] from its middle on, with their weights; each rule has the points of the one before it."""


@dataclass(frozen=True)
class Rule:
    """Points on [0, 1], 0 being the base model and 1 the global one, and their weights, which sum to 1."""

    points: tuple[float, ...]
    weights: tuple[float, ...]


def gauss_legendre(nodes: int) -> Rule:
    """The rule of so many points."""
    points, weights = np.polynomial.legendre.leggauss(nodes)  # on [−1, 1]
    return Rule(tuple(((points + 1) / 2).tolist()), tuple((weights / 2).tolist()))


def _whole(half: dict[float, float]) -> Rule:
    both = sorted({sign * point: weight for point, weight in half.items() for sign in (-1, 1)}.items())
    return Rule(tuple((point + 1) / 2 for point, _ in both), tuple(weight / 2 for _, weight in both))


NESTED_RULES = tuple(_whole(half) for half in _NESTED)
"""Rules of 3, 7 and 15 points, each of which has the points of the one before it."""
