"""Shapley values of games: of small ones over all coalitions, of others over orders of joining. Knows numbers only.

Of small games a coalition is a bit mask, bit i for player i; a game's values stand in a row of 2^K, many games side by
side. Of orders it is a set of players.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import combinations
from math import comb, sqrt

import torch
from scipy import stats
from torch import Tensor

PLAYERS_MAX = 10  # 1024 coalitions


def shapley_values(values: Tensor) -> Tensor:
    """Exact Shapley values (Shapley 1953) of N games at once: (2^K, N) float64 in, (K, N) float64 out.

    φ_i = Σ_{S ∌ i} |S|! (K − 1 − |S|)! / K! · (v(S ∪ i) − v(S)).

    Raises:
        ValueError: the number of coalitions is not a power of two, or there are more than `PLAYERS_MAX` players.
    """
    players = players_of(values)
    values_of_players = torch.zeros(players, values.shape[1], dtype=torch.float64)
    for player in range(players):
        others = [other for other in range(players) if other != player]
        for size in range(players):
            weight = 1 / (players * comb(players - 1, size))
            for members in combinations(others, size):
                without = sum(1 << member for member in members)
                values_of_players[player] += weight * (values[without | 1 << player] - values[without])
    return values_of_players


def antithetic_orders(players: int, pairs: int, seed: str) -> list[tuple[int, ...]]:
    """Orders in which K players join, each followed by its reverse (antithetic sampling, Mitchell et al. 2022).

    The same seed gives the same orders on every machine and in every version: an order is that of hashes, not of a
    generator whose numbers somebody might draw otherwise.
    """
    orders = []
    for pair in range(pairs):
        order = _hashed_order(players, f"{seed}/{pair}")
        orders += [order, order[::-1]]
    return orders


def sampled_values(orders: Sequence[Sequence[int]], worth: Mapping[frozenset[int], Tensor]) -> tuple[Tensor, Tensor]:
    """Shapley values of N games as means over orders of joining, and their standard errors: two of (K, N) float64.

    Args:
        orders: two by two; the pairs are independent of each other, and there are two or more of them.
        worth: v(S) of the N games, (N,), for each S with which an order begins, the empty one and the whole included.
    """
    assert len(orders) >= 4 and len(orders) % 2 == 0, "an error is told by two pairs at least"
    marginals = torch.stack([_marginals(order, worth) for order in orders])  # (orders, K, N)
    of_pairs = (marginals[0::2] + marginals[1::2]) / 2  # (pairs, K, N)
    return of_pairs.mean(0), of_pairs.std(0) / sqrt(len(of_pairs))


def linear_datamodelling_score(scores: Tensor, values: Tensor) -> Tensor:
    """How well sums of scores rank coalitions (Park et al. 2023): Spearman, for each of N games.

    `scores` is (K, N), `values` (2^K, N); the result is (N,) float64, 0 where either side is constant.
    """
    players = players_of(values)
    masks = torch.arange(len(values))
    member = (masks.unsqueeze(1) >> torch.arange(players)) & 1  # (2^K, K)
    predicted = member.double() @ scores.double()
    scores_of_responses = [
        0.0 if bool((a == a[0]).all() | (b == b[0]).all()) else float(stats.spearmanr(a, b).statistic)
        for a, b in zip(predicted.T, values.T, strict=True)
    ]
    return torch.tensor(scores_of_responses, dtype=torch.float64)


def players_of(values: Tensor) -> int:
    """How many players a table of coalition values has."""
    players = len(values).bit_length() - 1
    if len(values) != 1 << players:
        raise ValueError(f"{len(values)} coalitions are not all coalitions of any number of players")
    if players > PLAYERS_MAX:
        raise ValueError(f"{players} players have too many coalitions; at most {PLAYERS_MAX} players are possible")
    return players


def _hashed_order(players: int, seed: str) -> tuple[int, ...]:
    return tuple(sorted(range(players), key=lambda player: sha256(f"{seed}/{player}".encode()).digest()))


def _marginals(order: Sequence[int], worth: Mapping[frozenset[int], Tensor]) -> Tensor:
    """What each player adds when they join in this order: (K, N) float64."""
    grown = torch.stack([worth[frozenset(order[:size])] for size in range(len(order) + 1)]).double()  # (K + 1, N)
    added = torch.empty_like(grown[1:])
    added[list(order)] = grown[1:] - grown[:-1]
    return added
