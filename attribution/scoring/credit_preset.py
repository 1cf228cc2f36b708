"""Preset `credit`: scores from derivatives of the log-probability along the line base → global.

    φ_ij = Σ_m w_m ∂ log p(x_j | θ(a_m · 1)) / ∂ c_i        (design 5; science 2.4 B; Aumann and Shapley 1974)

with a_m, w_m the Gauss–Legendre rule on [0, 1]. With enough nodes Σ_i φ_ij = log p_global(x_j) − log p_base(x_j).
Does not know how tokens were decoded, nor what is paid.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from attribution.scoring.nodes import DEFAULT_NODES, gauss_legendre
from attribution.scoring.path import UpdatePath, forward_mode

_LOGITS_AT_ONCE = 1 << 22  # 16 MB in float32
_POSITIONS_AT_ONCE = 256


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
        at_base = _coefficients(path, [0.0])
        hidden = _hidden_states(path, at_base, context)
        return torch.cat([_log_probabilities(path, at_base, hidden, context, part)[0] for part in _parts(path, hidden)])


def response_level(path: UpdatePath, context: Context, nodes: int = DEFAULT_NODES) -> Tensor:
    """Signed score of each client for the response as a whole: (clients,) float64.

    One forward and one backward of Σ_j s_j per node; where no update is dense all nodes share one batch.
    """
    if not path.moves:
        return torch.zeros(path.clients, dtype=torch.float64, device=path.device)
    points, weights = gauss_legendre(nodes)
    batches = [points] if path.rows_may_differ else [[point] for point in points]
    slopes = torch.cat([_slopes(path, _coefficients(path, batch).requires_grad_(), context) for batch in batches])
    return torch.tensor(weights, dtype=torch.float64, device=slopes.device) @ slopes


def _slopes(path: UpdatePath, coefficients: Tensor, context: Context) -> Tensor:
    """∂ Σ_j s_j / ∂ c at each row of coefficients: (rows, clients) float64.

    The head is taken backward part by part, so that logits of few positions exist at once, and the decoder once.
    """
    hidden = _hidden_states(path, coefficients, context)
    leaf = hidden.detach().requires_grad_()
    into_hidden, at_head = torch.zeros_like(leaf), torch.zeros_like(coefficients)
    for part in _parts(path, leaf):
        total = _log_probabilities(path, coefficients, leaf, context, part).sum()
        by_hidden, by_coefficients = torch.autograd.grad(total, (leaf, coefficients), allow_unused=True)
        into_hidden += by_hidden
        if by_coefficients is not None:  # the head itself was changed
            at_head += by_coefficients
    if not hidden.requires_grad:
        return at_head
    (through_decoder,) = torch.autograd.grad(hidden, coefficients, into_hidden)
    return through_decoder + at_head


def token_level(path: UpdatePath, context: Context, nodes: int = DEFAULT_NODES) -> Tensor:
    """Signed score of each client for each token: (clients, T) float64.

    A forward-mode derivative along D_i gives the scores of all tokens at once: K per node, instead of one backward
    for each token.
    """
    points, weights = gauss_legendre(nodes)
    identity = torch.eye(path.clients, dtype=torch.float64, device=path.device)
    length = next(iter(context.inputs.values())).shape[1]
    together = max(1, _POSITIONS_AT_ONCE // length) if path.rows_may_differ else 1
    scores = torch.zeros(path.clients, len(context.tokens), dtype=torch.float64, device=path.device)
    if not path.moves:
        return scores
    with torch.no_grad(), forward_mode(path.model):
        for point, weight in zip(points, weights, strict=True):
            slopes = []
            for tangent in identity.split(together):
                at = forward_ad.make_dual(_coefficients(path, [point] * len(tangent)), tangent)
                hidden = _hidden_states(path, at, context)
                duals = [_log_probabilities(path, at, hidden, context, part) for part in _parts(path, hidden)]
                slopes.append(torch.cat([forward_ad.unpack_dual(dual).tangent for dual in duals], dim=1))
            scores += weight * torch.cat(slopes)
    return scores


def _hidden_states(path: UpdatePath, coefficients: Tensor, context: Context) -> Tensor:
    """What enters the head where a token was emitted, for each row of coefficients: (rows, T, width)."""
    rows = coefficients.shape[0]
    inputs = {name: value.expand(rows, *value.shape[1:]) for name, value in context.inputs.items()}
    return path.hidden_states(coefficients, context.positions, **inputs)


def _parts(path: UpdatePath, hidden: Tensor) -> list[slice]:
    """Slices of the T positions, few enough at once that their logits are small beside the model."""
    rows, length, _ = hidden.shape
    step = max(1, _LOGITS_AT_ONCE // (rows * path.vocabulary))
    return [slice(start, start + step) for start in range(0, length, step)]


def _log_probabilities(path: UpdatePath, coefficients: Tensor, hidden: Tensor, context: Context, part: slice) -> Tensor:
    """Log softmax(logits / temperature)[x_j] of some positions, for each row: (rows, part) float64."""
    logits = path.logits(coefficients, hidden[:, part]).float() / context.temperature
    tokens = context.tokens[part].expand(len(logits), -1)
    emitted = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return (emitted - logits.logsumexp(-1)).double()


def _coefficients(path: UpdatePath, points: list[float]) -> Tensor:
    column = torch.tensor(points, dtype=torch.float64, device=path.device)
    return column.unsqueeze(1).repeat(1, path.clients)
