"""Preset `credit`: scores from derivatives of the log-probability along the line base → global.

    φ_ij = Σ_m w_m ∂ log p(x_j | θ(a_m · 1)) / ∂ c_i        (design 5; science 2.4 B; Aumann and Shapley 1974)

with a_m, w_m the Gauss–Legendre rule on [0, 1]. With enough nodes Σ_i φ_ij = log p_global(x_j) − log p_base(x_j).
Does not know how tokens were decoded, nor what is paid.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from attribution.path import UpdatePath, forward_mode

__all__ = ["DEFAULT_NODES", "Context", "base_log_probabilities", "response_level", "token_level"]

DEFAULT_NODES = 2


@dataclass(frozen=True)
class Context:
    """One decoded response, as the path's model reads it.

    `inputs` is {"input_ids": (1, S)} or {"inputs_embeds": (1, S, width)} over prompt and response without its last
    token; `positions` (T,) index the S positions whose logits emitted `tokens` (T,).
    """

    inputs: Mapping[str, Tensor]
    positions: Tensor
    tokens: Tensor
    temperature: float


def base_log_probabilities(path: UpdatePath, context: Context) -> Tensor:
    """Log p_base of each emitted token, at c = 0: (T,) float64."""
    with torch.no_grad():
        return _log_probabilities(path, _coefficients(path, [0.0]), context)[0]


def response_level(path: UpdatePath, context: Context, nodes: int = DEFAULT_NODES) -> Tensor:
    """Signed score of each client for the response as a whole: (clients,) float64.

    One forward and one backward of Σ_j s_j per node; where no update is dense all nodes share one batch.
    """
    if not path.moves:
        return torch.zeros(path.clients, dtype=torch.float64, device=path.device)
    points, weights = _gauss_legendre(nodes)
    batches = [points] if path.rows_may_differ else [[point] for point in points]
    slopes = []
    for batch in batches:
        coefficients = _coefficients(path, batch).requires_grad_()
        total = _log_probabilities(path, coefficients, context).sum()
        slopes.append(torch.autograd.grad(total, coefficients)[0])
    return weights.to(slopes[0].device) @ torch.cat(slopes)


def token_level(path: UpdatePath, context: Context, nodes: int = DEFAULT_NODES) -> Tensor:
    """Signed score of each client for each token: (clients, T) float64.

    A forward-mode derivative along D_i gives the scores of all tokens at once: K per node, instead of one backward
    for each token.
    """
    points, weights = _gauss_legendre(nodes)
    identity = torch.eye(path.clients, dtype=torch.float64, device=path.device)
    directions = [identity] if path.rows_may_differ else list(identity.split(1))
    scores = torch.zeros(path.clients, len(context.tokens), dtype=torch.float64, device=path.device)
    if not path.moves:
        return scores
    with torch.no_grad(), forward_mode(path.model):
        for point, weight in zip(points, weights.tolist(), strict=True):
            slopes = []
            for tangent in directions:
                at = _coefficients(path, [point] * len(tangent))
                dual = _log_probabilities(path, forward_ad.make_dual(at, tangent), context)
                slopes.append(forward_ad.unpack_dual(dual).tangent)
            scores += weight * torch.cat(slopes)
    return scores


def _log_probabilities(path: UpdatePath, coefficients: Tensor, context: Context) -> Tensor:
    """Log softmax(logits / temperature)[x_j] for each row of coefficients: (rows, T) float64."""
    rows = coefficients.shape[0]
    inputs: dict[str, Any] = {name: value.expand(rows, *value.shape[1:]) for name, value in context.inputs.items()}
    logits = path.logits(coefficients, **inputs, logits_to_keep=context.positions)  # (rows, T, vocabulary)
    logits = logits.float() / context.temperature
    emitted = logits.gather(-1, context.tokens.expand(rows, -1).unsqueeze(-1)).squeeze(-1)
    return (emitted - logits.logsumexp(-1)).double()


def _coefficients(path: UpdatePath, points: list[float]) -> Tensor:
    column = torch.tensor(points, dtype=torch.float64, device=path.device)
    return column.unsqueeze(1).repeat(1, path.clients)


def _gauss_legendre(nodes: int) -> tuple[list[float], Tensor]:
    points, weights = np.polynomial.legendre.leggauss(nodes)  # on [−1, 1]
    return ((points + 1) / 2).tolist(), torch.from_numpy(weights / 2)
