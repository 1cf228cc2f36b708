"""∂ Σ_j log p(x_j | θ(c)) / ∂ c of one response: a forward and a backward pass over the blocks, a block at a time.

What a block keeps for its own backward pass is let go as soon as that is done. Where all blocks together would keep too
much, each keeps its input alone and is run again on the way back (checkpointing: Chen et al. 2016, arXiv 1604.06174),
for a third more time. Does not know nodes, nor what a slope is good for.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.scoring.interruptible import Pieces
from attribution.scoring.path import UpdatePath
from attribution.scoring.reading import Context, emitted_log_probabilities, enter, head_parts
from attribution.scoring.saved_bytes import count_saved

MEMORY_BYTES = 1 << 30
"""What the blocks of one pass may keep together, where nobody says otherwise."""


@dataclass(frozen=True)
class _Link:
    """One block of a pass: what entered it, and what left it with its graph, or None where it is to be run again."""

    entered: Tensor
    left: Tensor | None


def slopes(
    path: UpdatePath, coefficients: Tensor, context: Context, memory_bytes: int = MEMORY_BYTES
) -> Pieces[Tensor]:
    """The slopes at each row of coefficients: (rows, clients) float64."""
    coefficients.requires_grad_()
    with torch.enable_grad():
        entered, calls = enter(path, coefficients, context)
    indices = range(path.first_block, path.blocks)
    links: list[_Link] = []
    hidden, keep = entered.detach().requires_grad_(path.moves_embedding), True
    for index in indices:
        with torch.set_grad_enabled(keep), count_saved(path.model.model.layers[index]) as saved:
            left = path.block(index, coefficients, hidden, calls[index])
        keep = keep and saved.total * len(indices) <= memory_bytes  # the others are like this one
        links.append(_Link(hidden, left if keep else None))
        hidden = left.detach().requires_grad_()
        del left
        yield
    by_hidden, slope = yield from _through_head(path, coefficients, hidden, context)
    for index in reversed(indices):
        link = links.pop()
        with torch.enable_grad():
            left = path.block(index, coefficients, link.entered, calls[index]) if link.left is None else link.left
        by_hidden, by_coefficients = _through(left, link.entered, coefficients, by_hidden)
        slope += by_coefficients
        del link, left
        yield
    if entered.requires_grad:
        slope += torch.autograd.grad(entered, coefficients, by_hidden)[0]
    return slope


def _through_head(
    path: UpdatePath, coefficients: Tensor, hidden: Tensor, context: Context
) -> Pieces[tuple[Tensor, Tensor]]:
    """Norm and head, forward and backward, part by part: the slopes by what left the last block, and by c directly."""
    emitting = hidden.detach()[:, context.positions].requires_grad_()
    with torch.enable_grad():
        normed = path.norm(coefficients, emitting)
    leaf = normed.detach().requires_grad_()
    into_head, slope = torch.zeros_like(leaf), torch.zeros_like(coefficients)
    for part in head_parts(path, leaf):
        with torch.enable_grad():
            total = emitted_log_probabilities(path, coefficients, leaf, context, part).sum()
        by_leaf, by_coefficients = _through(total, leaf, coefficients)
        into_head += by_leaf
        slope += by_coefficients
        yield
    by_emitting, by_coefficients = _through(normed, emitting, coefficients, into_head)
    by_hidden = torch.zeros_like(hidden)
    by_hidden[:, context.positions] = by_emitting
    return by_hidden, slope + by_coefficients


def _through(
    output: Tensor, entered: Tensor, coefficients: Tensor, gradient: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients by what entered and by the coefficients; zeros where the output does not depend on one of them."""
    wanted = [tensor for tensor in (entered, coefficients) if tensor.requires_grad]
    made = torch.autograd.grad(output, wanted, gradient, allow_unused=True) if output.requires_grad else ()
    by = {id(tensor): slope for tensor, slope in zip(wanted, made, strict=False) if slope is not None}
    return by.get(id(entered), torch.zeros_like(entered)), by.get(id(coefficients), torch.zeros_like(coefficients))
