"""One parameter's merge, recomputed: is what is stored a rounding of base + Σ_i D_i in every element, and nothing else?

Of recorded rounds, where the server may have done more, only how much that is. In doubles, some rows at a time. Does
not know bundles or files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attribution.bundle.updates import LowRank, Update

_ELEMENTS_AT_ONCE = 1 << 22
_RANKS_AT_ONCE = 1 << 10
_MERGED_IN = torch.finfo(torch.float32).eps / 2  # relative error of one operation of the merge


@dataclass
class MergeCheck:
    """What was found, squares of Frobenius norms: of served − base, of what is left of it, and of each client's part.

    `wrong` counts elements that no rounding of the sum explains.
    """

    total: float = 0.0
    residual: float = 0.0
    wrong: int = 0
    clients: dict[str, float] = field(default_factory=dict)


def check_merge(name: str, served: Tensor, base: Tensor, updates: Mapping[str, Update]) -> MergeCheck:
    """Compare a stored parameter with base + Σ_i D_i, element by element.

    A merge in float32 errs by no more than its operations may; what it gives is then rounded to the stored type. So an
    honest element lies between the roundings of both ends, and is the one rounding where these agree, as nearly always:
    a change far below the stored type's precision shows in the elements whose rounding it turns over.
    """
    check = MergeCheck()
    rows = served.shape[0] if served.ndim else 1
    served, base = served.reshape(rows, -1), base.reshape(rows, -1)
    for chosen in _slices(served):
        stored, origin = served[chosen].double(), base[chosen].double()
        exact, size, error, terms = origin.clone(), origin.abs(), torch.zeros_like(origin), 0
        for client, update in updates.items():
            whole = torch.zeros_like(origin)
            for change, magnitude, relative in _terms(update, name, chosen, rows):
                whole += change
                size += change.abs()
                error += relative * magnitude
                terms += 1
            exact += whole
            check.clients[client] = check.clients.get(client, 0.0) + float(whole.square().sum())
        slack = terms * _MERGED_IN * size + error
        low, high = (exact - slack).to(served.dtype).double(), (exact + slack).to(served.dtype).double()
        check.wrong += int((~((low <= stored) & (stored <= high))).sum())
        check.total += float((stored - origin).square().sum())
        check.residual += float((stored - exact).square().sum())
    return check


def measure_merge(name: str, served: Tensor, base: Tensor, updates: Mapping[str, Update]) -> MergeCheck:
    """How much of served − base the updates leave, whatever it is; what each client's part is, is not looked at."""
    check = MergeCheck()
    rows = served.shape[0] if served.ndim else 1
    served, base, module = served.reshape(rows, -1), base.reshape(rows, -1), name.removesuffix(".weight")
    whole = [update.dense[name].reshape(rows, -1) for update in updates.values() if name in update.dense]
    factors = [update.low_rank[module] for update in updates.values() if module in update.low_rank and module != name]
    for chosen in _slices(served):
        left = served[chosen].double() - base[chosen].double()
        check.total += float(left.square().sum())
        for change in whole:
            left -= change[chosen].double()
        for some in _batches(factors):
            A, B = torch.cat([each.A for each in some]), torch.cat([each.B[chosen] for each in some], dim=1)
            left.addmm_(B.double(), A.double(), alpha=-1)
        check.residual += float(left.square().sum())
    return check


def _slices(matrix: Tensor) -> Iterator[slice]:
    """Rows of a matrix, some at a time."""
    rows, columns = matrix.shape
    at_once = max(1, _ELEMENTS_AT_ONCE // max(1, columns))
    for start in range(0, rows, at_once):
        yield slice(start, start + at_once)


def _batches(factors: Sequence[LowRank]) -> Iterator[list[LowRank]]:
    """Factors of so many ranks together that their product is worth its call, and needs little room."""
    some: list[LowRank] = []
    for each in factors:
        some.append(each)
        if sum(one.A.shape[0] for one in some) >= _RANKS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _terms(update: Update, name: str, chosen: slice, rows: int) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Rows of each part of an update; what its own rounding errors are relative to, and how large they may be."""
    whole = update.dense.get(name)
    if whole is not None:
        part = whole.reshape(rows, -1)[chosen].double()
        yield part, part.abs(), 0.0
    low_rank = update.low_rank.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
    if low_rank is not None:
        A, B = low_rank.A.double(), low_rank.B[chosen].double()
        yield B @ A, B.abs() @ A.abs(), (A.shape[0] + 1) * torch.finfo(low_rank.B.dtype).eps / 2
