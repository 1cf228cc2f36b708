"""What one client's training changed: low-rank factors or whole differences of named parameters, on disk and in memory.

Does not know whether an update is weighted, cumulative, or of one round: the manifest says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from attribution.errors import BundleError
from attribution.files.torch_tensors import is_finite, read_tensors

_DTYPES = {torch.float64, torch.float32, torch.bfloat16, torch.float16}
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class LowRank:
    """The change of one linear layer, ΔW = B A, the scaling alpha / r already within B.

    `A` is (rank, inputs), `B` is (outputs, rank).
    """

    A: Tensor
    B: Tensor

    def dense(self) -> Tensor:
        """ΔW = B A, (outputs, inputs)."""
        return self.B @ self.A


@dataclass(frozen=True)
class Update:
    """Low-rank changes by module name, and whole differences by parameter name; what is not named is unchanged."""

    low_rank: Mapping[str, LowRank] = field(default_factory=dict)
    dense: Mapping[str, Tensor] = field(default_factory=dict)

    def parameters(self) -> set[str]:
        """Names of the parameters that this update changes."""
        return {f"{module}.weight" for module in self.low_rank} | set(self.dense)

    def difference(self, parameter: str) -> Tensor | None:
        """The change of one parameter as a whole tensor, or None where this update leaves it alone."""
        whole = self.dense.get(parameter)
        low_rank = self.low_rank.get(parameter.removesuffix(".weight")) if parameter.endswith(".weight") else None
        if low_rank is None:
            return whole
        return low_rank.dense() if whole is None else whole + low_rank.dense()

    def to(self, device: torch.device | str) -> "Update":
        """The same update with its low-rank factors on `device`; whole differences stay memory-mapped."""
        moved = {name: LowRank(lr.A.to(device), lr.B.to(device)) for name, lr in self.low_rank.items()}
        return Update(moved, self.dense)


def is_factor(name: str) -> bool:
    """Whether a tensor of an update's file is half of a low-rank change, by its name; else it is a whole difference."""
    return name.endswith((_A, _B))


def save_update(update: Update, path: Path) -> None:
    """Write an update as one safetensors file, factors as `MODULE.lora_A.weight` and `MODULE.lora_B.weight`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in update.dense.items()}
    for module, low_rank in update.low_rank.items():
        tensors[module + _A] = low_rank.A.detach().cpu().contiguous()
        tensors[module + _B] = low_rank.B.detach().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def load_update(path: Path) -> Update:
    """Read an update; tensors are memory-mapped, so a whole difference costs address space until it is touched.

    Raises:
        BundleError: the file cannot be read, a factor lacks its other half, shapes disagree, or a value is not finite.
    """
    tensors = read_tensors(path, BundleError)
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise BundleError(
                f"{path}: tensor {name!r} is {tensor.dtype}, not a floating-point type of 16 bits or more"
            )
        if not is_finite(tensor):
            raise BundleError(f"{path}: tensor {name!r} holds NaN or infinity")
    modules = sorted({name.removesuffix(_A) for name in tensors if name.endswith(_A)})
    low_rank = {}
    for module in modules:
        A, B = tensors.pop(module + _A), tensors.pop(module + _B, None)
        if B is None or A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
            raise BundleError(
                f"{path}: factors of {module!r} do not fit: A {tuple(A.shape)}, B {B is not None and tuple(B.shape)}"
            )
        low_rank[module] = LowRank(A, B)
    orphans = [name for name in tensors if name.endswith(_B)]
    if orphans:
        raise BundleError(f"{path}: {orphans[0]!r} has no lora_A beside it")
    return Update(low_rank, tensors)


def weighted_sum(terms: Sequence[tuple[float, Update]]) -> Update:
    """Σ w · update. Low-rank factors are stacked, not multiplied out: ranks add up and nothing is rounded away."""
    low_rank, dense = {}, {}
    for module in sorted(set().union(*(update.low_rank for _, update in terms))):
        parts = [(weight, update.low_rank[module]) for weight, update in terms if module in update.low_rank]
        A = torch.cat([part.A for _, part in parts], dim=0)
        B = torch.cat([weight * part.B for weight, part in parts], dim=1)
        low_rank[module] = LowRank(A, B)
    for name in sorted(set().union(*(update.dense for _, update in terms))):
        differences = [weight * update.dense[name] for weight, update in terms if name in update.dense]
        dense[name] = torch.stack(differences).sum(0)
    return Update(low_rank, dense)
