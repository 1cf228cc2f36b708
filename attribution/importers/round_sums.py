"""What the rounds of a federation add up to, in the space of merged weights, from what was sent and from what before.

A client's change of a linear layer with LoRA factors is s (B A − B₀ A₀) = s (ΔB A + B₀ ΔA): written so, it is as exact
as the differences are, however small beside the whole, and nothing at all where nothing changed. Does not know files.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from attribution.bundle.updates import LowRank

_HALVES = (torch.bfloat16, torch.float16)
_SAMPLE = 64  # numbers that tell of most tensors that they are in no half precision, before all are looked at
_ROUNDING = torch.finfo(torch.float32).eps / 2


def trained_difference(value: Tensor, original: Tensor) -> Tensor:
    """What training changed of one tensor: of one saved in half precision, not what that rounded of the others."""
    difference = value - original
    sample = value.flatten()[:_SAMPLE]
    half = next((half for half in _HALVES if _is_exact(sample, half) and _is_exact(value, half)), None)
    return difference if half is None else difference.masked_fill_(value == original.to(half).float(), 0)


def _is_exact(value: Tensor, half: torch.dtype) -> bool:
    return torch.equal(value, value.to(half).float())


def factor_differences(sent: LowRank, before: LowRank) -> LowRank:
    """What training changed of a layer's factors: ΔA and ΔB."""
    return LowRank(trained_difference(sent.A, before.A), trained_difference(sent.B, before.B))


def low_rank_change(differences: LowRank, before: LowRank, scaling: float) -> LowRank:
    """The change of the merged layer, s (ΔB A + B₀ ΔA): twice the rank at most, and rank 0 where it is nothing."""
    parts = [LowRank(before.A[:0], before.B[:, :0])]
    if differences.B.any():
        parts.append(LowRank(before.A + differences.A, scaling * differences.B))
    if differences.A.any() and before.B.any():
        parts.append(LowRank(differences.A, scaling * before.B))
    return _stack(parts)


def low_rank_sum(terms: Sequence[tuple[float, LowRank]]) -> LowRank:
    """Σ w · change of one layer, not multiplied out; ranks that reach half of what a matrix has are brought down.

    Then what falls away is rounding: singular values below the precision of the largest.
    """
    total = _stack([LowRank(part.A, weight * part.B) for weight, part in terms])
    rank, least = total.A.shape[0], min(total.A.shape[1], total.B.shape[0])
    return total if 2 * rank < least else _bring_down(total)


def low_rank_residual(
    after: LowRank, before: LowRank, clients: Iterable[tuple[float, LowRank]], scaling: float
) -> LowRank:
    """What a round changed of a layer beyond Σ_i ρ_i s (ΔB_i A_i + B₀ ΔA_i); `clients` are ρ_i with ΔA_i and ΔB_i.

    B₀ Σ_i ρ_i ΔA_i is one part for all clients, so that they cost one rank each for a rank of theirs.
    """
    parts = [low_rank_change(LowRank(after.A - before.A, after.B - before.B), before, scaling)]
    mean = torch.zeros_like(before.A)
    for weight, differences in clients:
        parts.append(LowRank(before.A + differences.A, -weight * scaling * differences.B))
        mean += weight * differences.A
    return _stack([*parts, LowRank(mean, -scaling * before.B)])


def _stack(parts: Sequence[LowRank]) -> LowRank:
    return LowRank(torch.cat([part.A for part in parts]), torch.cat([part.B for part in parts], dim=1))


def _bring_down(factors: LowRank) -> LowRank:
    left, upper = torch.linalg.qr(factors.B.double())
    right, lower = torch.linalg.qr(factors.A.double().T)
    U, sizes, V = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    summed = (
        torch.finfo(torch.float64).eps * len(factors.A) * upper.norm() * lower.norm()
    )  # what doubles leave of nothing
    kept = int((sizes > torch.maximum(_ROUNDING * sizes.max(), summed)).sum())
    roots = sizes[:kept].sqrt()
    A, B = roots[:, None] * (V[:kept] @ right.T), (left @ U[:, :kept]) * roots
    return LowRank(A.float(), B.float())
