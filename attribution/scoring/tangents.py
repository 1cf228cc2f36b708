"""∂ log p(x_j | θ(c)) / ∂ c of every token of a response at once: forward-mode derivatives, one for each client.

So K passes give the scores of all tokens, instead of a backward pass for each token. Does not know nodes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from attribution.scoring.interruptible import Pieces
from attribution.scoring.path import UpdatePath, forward_mode
from attribution.scoring.reading import Context, coefficients_of, emitted_log_probabilities, enter, head_parts

_POSITIONS_AT_ONCE = 256
_Dual = tuple[Tensor, Tensor | None]
"""A tensor and its tangent; None where it has none."""


def tangents(path: UpdatePath, point: float, context: Context) -> Pieces[Tensor]:
    """The slopes of each token at c = point: (clients, T) float64."""
    identity = torch.eye(path.clients, dtype=torch.float64, device=path.device)
    length = context.token_ids.shape[1]
    together = max(1, _POSITIONS_AT_ONCE // length) if path.rows_may_differ else 1
    parts = []
    for directions in identity.split(together):
        at: _Dual = coefficients_of(path, [point] * len(directions)), directions
        parts.append((yield from _tangents(path, at, context)))
    return torch.cat(parts)


def _tangents(path: UpdatePath, at: _Dual, context: Context) -> Pieces[Tensor]:
    with torch.no_grad(), forward_mode(path.model):
        entered, calls = enter(path, _dual(at), context)
        hidden = _apart(entered)
    for index in range(path.first_block, path.blocks):
        hidden = _block(path, index, at, hidden, calls[index])
        yield
    with torch.no_grad(), forward_mode(path.model):
        hidden = _apart(path.norm(_dual(at), _dual(hidden)[:, context.positions]))
    parts = []
    for part in head_parts(path, hidden[0]):
        with torch.no_grad(), forward_mode(path.model):
            scores = emitted_log_probabilities(path, _dual(at), _dual(hidden), context, part)
            primal, tangent = _apart(scores)
        parts.append(torch.zeros_like(primal) if tangent is None else tangent)
        yield
    return torch.cat(parts, dim=1)


def _block(path: UpdatePath, index: int, at: _Dual, hidden: _Dual, call: Mapping[str, Any]) -> _Dual:
    with torch.no_grad(), forward_mode(path.model):
        return _apart(path.block(index, _dual(at), _dual(hidden), call))


def _dual(pair: _Dual) -> Tensor:
    tensor, tangent = pair
    if tangent is None:
        return tensor
    dual: Tensor = forward_ad.make_dual(tensor, tangent)
    return dual


def _apart(dual: Tensor) -> _Dual:
    """The two halves, which outlive the level of differentiation in which they were made."""
    primal, tangent = forward_ad.unpack_dual(dual)
    return primal, tangent
