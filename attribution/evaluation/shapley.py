"""Shapley values of small games, written out over all coalitions. Knows numbers only: no models, no clients.

A coalition is a bit mask, bit i for player i; a game's values stand in a row of 2^K, many games side by side.
"""

from itertools import combinations
from math import comb

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
