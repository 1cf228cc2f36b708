"""A response as the path's model reads it: log-probabilities of its tokens at any coefficients, block by block.

Knows no derivative, and not how the tokens were decoded.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attribution.scoring.interruptible import Pieces
from attribution.scoring.path import UpdatePath

_LOGITS_AT_ONCE = 1 << 22  # 16 MB in float32


@dataclass(frozen=True)
class Context:
    """One response.

    Attributes:
        token_ids: (1, S), prompt and response without its last token.
        positions: (T,), those of the S positions whose logits emitted `tokens`.
        tokens: (T,), the response.
        temperature: at which log-probabilities are taken.
        prefix: (1, S, width), what enters the first block that any client changed; None where that is the first.
    """

    token_ids: Tensor
    positions: Tensor
    tokens: Tensor
    temperature: float
    prefix: Tensor | None = None


def context_of(
    prompt: Sequence[int], tokens: Sequence[int], temperature: float, device: torch.device, prefix: Tensor | None = None
) -> Context:
    """A response, from its ids; neither `prompt` nor `tokens` may be empty.

    `prefix` (S, width) is what entered the first changed block when it was decoded, where that was in the same dtype.
    """
    return Context(
        token_ids=torch.tensor([[*prompt, *tokens[:-1]]], device=device),
        positions=torch.arange(len(prompt) - 1, len(prompt) - 1 + len(tokens), device=device),
        tokens=torch.tensor(tokens, device=device),
        temperature=temperature,
        prefix=None if prefix is None else prefix.unsqueeze(0),
    )


def read_prefix(path: UpdatePath, context: Context) -> Pieces[Context]:
    """The same response, with what the blocks before the first changed one make of it: no coefficient matters there."""
    if path.first_block == 0 or context.prefix is not None:
        return context
    with torch.no_grad():
        entry = path.enter(coefficients_of(path, [1.0]), context.token_ids)
    hidden = entry.hidden
    for block, call in zip(path.model.model.layers[: path.first_block], entry.calls, strict=False):
        with torch.no_grad():
            output = block(hidden, **call)
        hidden = output[0] if isinstance(output, tuple) else output
        yield
    return replace(context, prefix=hidden)


def enter(path: UpdatePath, coefficients: Tensor, context: Context) -> tuple[Tensor, tuple[Mapping[str, Any], ...]]:
    """What enters the first changed block, for each row of coefficients, and what each block is called with beside."""
    entry = path.enter(coefficients, context.token_ids)
    if context.prefix is None:
        return entry.hidden, entry.calls
    return context.prefix.expand(len(coefficients), -1, -1), entry.calls


def log_probabilities(path: UpdatePath, points: Sequence[float], context: Context) -> Pieces[Tensor]:
    """Log p of each token at c = point, for each point: (points, T) float64, without a graph."""
    together = [list(points)] if path.rows_may_differ else [[point] for point in points]
    rows: list[Tensor] = []
    for batch in together:
        rows += yield from log_probabilities_at(path, coefficients_of(path, batch), context)
    return torch.stack(rows)


def log_probabilities_at(path: UpdatePath, coefficients: Tensor, context: Context) -> Pieces[Tensor]:
    """Log p of each token at each row of coefficients (rows, clients): (rows, T) float64, without a graph."""
    with torch.no_grad():
        hidden, calls = enter(path, coefficients, context)
    for index in range(path.first_block, path.blocks):
        with torch.no_grad():
            hidden = path.block(index, coefficients, hidden, calls[index])
        yield
    with torch.no_grad():
        hidden = path.norm(coefficients, hidden[:, context.positions])
    parts = []
    for part in head_parts(path, hidden):
        with torch.no_grad():
            parts.append(emitted_log_probabilities(path, coefficients, hidden, context, part))
        yield
    return torch.cat(parts, dim=1)


def head_parts(path: UpdatePath, hidden: Tensor) -> Iterator[slice]:
    """Slices of the T positions, few enough at once that their logits are small beside the model."""
    rows, length, _ = hidden.shape
    step = max(1, _LOGITS_AT_ONCE // (rows * path.vocabulary))
    return (slice(start, start + step) for start in range(0, length, step))


def emitted_log_probabilities(
    path: UpdatePath, coefficients: Tensor, hidden: Tensor, context: Context, part: slice
) -> Tensor:
    """Log softmax(logits / temperature)[x_j] of some of the positions in `hidden` (rows, T, width): (rows, part)."""
    logits = path.logits(coefficients, hidden[:, part]).float() / context.temperature
    tokens = context.tokens[part].expand(len(logits), -1)
    emitted = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return (emitted - logits.logsumexp(-1)).double()


def coefficients_of(path: UpdatePath, points: Sequence[float]) -> Tensor:
    """One row for each point, at which all clients are alike: (points, clients) float64."""
    column = torch.tensor(points, dtype=torch.float64, device=path.device)
    return column.unsqueeze(1).repeat(1, path.clients)
