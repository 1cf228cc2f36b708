"""Signed scores to shares: what each rule does with the base share, netting, ties and the case that nobody earned.

Does not know how scores were computed, nor what a share is worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Shares:
    """Non-negative shares of one response: those of the clients and `base_share` sum to 1.

    `base_shares` holds β_j of each token; its mean is `base_share` unless no client has a positive net score.
    """

    clients: Mapping[str, float]
    base_share: float
    base_shares: tuple[float, ...]


def netted_shares(
    response_scores: Mapping[str, float], log_p_global: Sequence[float], log_p_base: Sequence[float]
) -> Shares:
    """Shares under the `credit` preset (design 5).

    β_j = min(1, p_base(j) / p_global(j)) goes to the commons, 1 − β_j to the clients in proportion to the positive
    part of their scores netted over the whole response. Where no client has one, the commons takes the response.
    """
    base_shares = tuple(
        float(torch.tensor(min(0.0, base - served), dtype=torch.float64).exp())
        for base, served in zip(log_p_base, log_p_global, strict=True)
    )
    positive = {client: max(score, 0.0) for client, score in response_scores.items()}
    earned = sum(positive.values())
    base_share = sum(base_shares) / len(base_shares)
    if earned <= 0.0:
        return Shares(dict.fromkeys(positive, 0.0), 1.0, base_shares)
    clients = {client: (1.0 - base_share) * (score / earned) for client, score in positive.items()}
    return Shares(clients, base_share, base_shares)


def softmax_shares(response_scores: Mapping[str, float], tokens: int) -> Shares:
    """Shares under the `paper` preset: softmax of the response's scores (arXiv 2601.19672, eq. 10), no base share."""
    values = torch.tensor(list(response_scores.values()), dtype=torch.float64)
    shares = dict(zip(response_scores, torch.softmax(values, 0).tolist(), strict=True))
    return Shares(shares, 0.0, (0.0,) * tokens)
