"""How large updates are and how alike: inner products between updates, low-rank ones never multiplied out.

Does not know who submitted them or what follows from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attribution.bundle.updates import LowRank, Update


def gram(updates: Sequence[Update]) -> Tensor:
    """Frobenius inner products ⟨Δ_i, Δ_j⟩ over all parameters: (updates, updates) float64.

    ⟨B_i A_i, B_j A_j⟩ = Σ (B_iᵀ B_j) ∘ (A_i A_jᵀ), so factors are never multiplied out. Whole differences are read one
    parameter at a time.
    """
    total = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    names = sorted(set().union(*(update.parameters() for update in updates)))
    for name in names:
        module = name.removesuffix(".weight")
        for i, first in enumerate(updates):
            for j in range(i, len(updates)):
                product = _inner(first, updates[j], name, module)
                total[i, j] += product
                if i != j:
                    total[j, i] += product
    return total


def norms(updates: Sequence[Update]) -> Tensor:
    """Frobenius norms over all parameters: (updates,) float64."""
    squares = [sum(_inner(update, update, name, name.removesuffix(".weight")) for name in update.parameters())
               for update in updates]  # fmt: skip
    return torch.tensor(squares, dtype=torch.float64).clamp(min=0).sqrt()


def cosines(updates: Sequence[Update]) -> Tensor:
    """Cosine between every two updates: (updates, updates) float64; 0 where one changes nothing."""
    products = gram(updates)
    lengths = products.diagonal().clamp(min=0).sqrt()
    scale = torch.where(lengths > 0, 1 / lengths, torch.zeros_like(lengths))
    return (products * scale.unsqueeze(0) * scale.unsqueeze(1)).clamp(-1, 1)


def _inner(first: Update, second: Update, name: str, module: str) -> float:
    pairs = [(first, second), (second, first)]
    total = 0.0
    a, b = first.low_rank.get(module), second.low_rank.get(module)
    if name.endswith(".weight") and a is not None and b is not None:
        total += _product_of_factors(a, b)
    whole_a, whole_b = first.dense.get(name), second.dense.get(name)
    if whole_a is not None and whole_b is not None:
        total += _product(whole_a, whole_b)
    for one, other in pairs:
        factors, whole = one.low_rank.get(module), other.dense.get(name)
        if name.endswith(".weight") and factors is not None and whole is not None:
            # ⟨B A, W⟩ = Σ (Bᵀ W) ∘ A
            total += _product(factors.B.T.float() @ whole.float(), factors.A.float())
    return total


def _product_of_factors(a: LowRank, b: LowRank) -> float:
    return _product(a.B.T.double() @ b.B.double(), a.A.double() @ b.A.T.double())


def _product(first: Tensor, second: Tensor) -> float:
    return float((first.double() * second.double()).sum())
