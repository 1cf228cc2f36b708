"""What whole differences of weights add to a layer's output, read from disk piece by piece: no moved weight is built.

    y + Σ_i o_i x D_iᵀ  for a linear layer,   y + Σ_i o_i D_i[ids]  for an embedding

differentiable in the offsets o and in x, backward and forward. Knows single layers only.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Differences = Sequence[tuple[int, Tensor]]  # (client's index, its whole difference of the layer's weight)
_ELEMENTS_AT_ONCE = 1 << 20  # 4 MB in float32


def shift_hook(layer: nn.Module, differences: Differences, offset: Tensor) -> Callable[..., Tensor]:
    """A forward hook that moves `layer`'s output as if its weight had moved by Σ_i offset[i] D_i.

    `offset` is (clients,) float64.

    Raises:
        TypeError: the layer is neither linear nor an embedding.
    """
    if isinstance(layer, nn.Linear):

        def shift_linear(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            moved: Tensor = _LinearShift.apply(arguments[0], offset, differences)  # type: ignore[no-untyped-call]
            return output + moved

        return shift_linear
    if not isinstance(layer, nn.Embedding):
        raise TypeError(f"a whole difference of a {type(layer).__name__} cannot be streamed")

    def shift_embedding(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        scale = getattr(layer, "embed_scale", 1.0)  # Gemma 3 scales what it looks up
        for index, difference in differences:
            rows = difference[arguments[0].cpu()].to(output.device, output.dtype)
            output = output + offset[index].to(output.dtype) * (rows * scale)
        return output

    return shift_embedding


class _LinearShift(torch.autograd.Function):
    """Σ_i o_i x D_iᵀ; only x and o are kept for the backward pass, the differences are read again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, differences: Differences) -> Tensor:
        ctx.save_for_backward(x, offset)
        ctx.save_for_forward(x, offset)
        ctx.differences = differences
        return _product(x, offset, differences)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, offset = ctx.saved_tensors
        (gradient,) = gradients
        flat_x, flat_gradient = x.flatten(0, -2), gradient.flatten(0, -2)  # (positions, inputs), (positions, outputs)
        by_x, by_offset = torch.zeros_like(flat_x), torch.zeros_like(offset)
        for rows in _rows(ctx.differences):
            part = flat_gradient[:, rows]
            by_weight = part.T @ flat_x  # (rows, inputs), formed once for all clients
            total = torch.zeros_like(by_weight)
            for index, difference in ctx.differences:
                piece = difference[rows].to(x.device, x.dtype)
                by_offset[index] += (by_weight * piece).sum(dtype=offset.dtype)
                total += offset[index].to(x.dtype) * piece
            by_x += part @ total
        return by_x.reshape(x.shape), by_offset, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, offset = ctx.saved_tensors
        x_tangent, offset_tangent, _ = tangents
        moved = torch.zeros((), dtype=x.dtype, device=x.device)
        if x_tangent is not None:
            moved = moved + _product(x_tangent, offset, ctx.differences)
        if offset_tangent is not None:
            moved = moved + _product(x, offset_tangent, ctx.differences)
        return moved


def _product(x: Tensor, offset: Tensor, differences: Differences) -> Tensor:
    outputs = differences[0][1].shape[0]
    moved = x.new_empty(*x.shape[:-1], outputs)
    for rows in _rows(differences):
        total = torch.zeros(rows.stop - rows.start, x.shape[-1], dtype=x.dtype, device=x.device)
        for index, difference in differences:
            total += offset[index].to(x.dtype) * difference[rows].to(x.device, x.dtype)
        moved[..., rows] = nn.functional.linear(x, total)
    return moved


def _rows(differences: Differences) -> Iterator[slice]:
    """Slices of the layer's outputs, few enough at once that a piece of every weight fits in a few megabytes."""
    outputs, inputs = differences[0][1].shape
    step = max(1, _ELEMENTS_AT_ONCE // inputs)
    for start in range(0, outputs, step):
        yield slice(start, min(start + step, outputs))
