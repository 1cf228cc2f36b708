"""How large updates are and how alike: inner products between updates, low-rank ones never multiplied out.

Does not know who submitted them or what follows from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attribution.bundle.updates import LowRank, Update

_ELEMENTS_AT_ONCE = 1 << 22


def gram(updates: Sequence[Update]) -> Tensor:
    """Frobenius inner products ⟨Δ_i, Δ_j⟩ over all parameters: (updates, updates) float64.

    ⟨B_i A_i, B_j A_j⟩ = Σ (B_iᵀ B_j) ∘ (A_i A_jᵀ), so factors are not multiplied out, but where many clients have so
    many ranks that it is less work. Whole differences are read one parameter at a time.
    """
    total = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for name in sorted(set().union(*(update.parameters() for update in updates))):
        module = name.removesuffix(".weight")
        if _is_less_work_in_pieces([each.low_rank[module] for each in updates if module in each.low_rank]):
            total += _gram_in_pieces(updates, name)
            continue
        for i, first in enumerate(updates):
            for j in range(i, len(updates)):
                product = _inner(first, updates[j], name, module)
                total[i, j] += product
                if i != j:
                    total[j, i] += product
    return total


def _is_less_work_in_pieces(factors: Sequence[LowRank]) -> bool:
    """Whether to multiply factors of one layer out costs less than products of every two of them."""
    if not factors:
        return False
    ranks, (outputs, inputs) = sum(each.A.shape[0] for each in factors), (factors[0].B.shape[0], factors[0].A.shape[1])
    return 2 * (ranks + len(factors) ** 2) * inputs * outputs < ranks**2 * (inputs + outputs)


def _gram_in_pieces(updates: Sequence[Update], name: str) -> Tensor:
    """The same of one matrix, all updates of it multiplied out, some rows at a time."""
    module = name.removesuffix(".weight")
    factors = [
        (index, _in_doubles(each.low_rank[module])) for index, each in enumerate(updates) if module in each.low_rank
    ]
    whole = [(index, each.dense[name]) for index, each in enumerate(updates) if name in each.dense]
    outputs, inputs = factors[0][1].B.shape[0], factors[0][1].A.shape[1]
    total = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for rows in torch.arange(outputs).split(max(1, _ELEMENTS_AT_ONCE // (inputs * len(updates)))):
        piece = torch.zeros(len(updates), len(rows), inputs, dtype=torch.float64)
        for index, each in factors:
            piece[index] += each.B[rows] @ each.A
        for index, difference in whole:
            piece[index] += difference[rows]
        total += piece.flatten(1) @ piece.flatten(1).T
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
    one = _in_doubles(a)
    other = one if b is a else _in_doubles(b)
    ranks, (outputs, inputs) = (one.A.shape[0], other.A.shape[0]), (one.B.shape[0], one.A.shape[1])
    if ranks[0] * ranks[1] * (inputs + outputs) <= sum(ranks) * inputs * outputs:
        return _product(one.B.T @ other.B, one.A @ other.A.T)
    # of so many ranks the products themselves are less work, some rows at a time
    rows = max(1, _ELEMENTS_AT_ONCE // inputs)
    pieces = zip(one.B.split(rows), other.B.split(rows), strict=True)
    return sum(_product(first @ one.A, second @ other.A) for first, second in pieces)


def _in_doubles(factors: LowRank) -> LowRank:
    return LowRank(factors.A.double(), factors.B.double())


def _product(first: Tensor, second: Tensor) -> float:
    return float((first.double() * second.double()).sum())
