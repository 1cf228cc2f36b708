"""Tensors out of safetensors files that somebody else wrote; what is wrong is one line that names the file.

Apart from `safetensors_files`, since it needs torch. Does not know what the tensors are for: who reads says which
error is raised.
"""

from pathlib import Path

import torch
from torch import Tensor

from attribution.errors import AttributionError
from attribution.files.safetensors_files import opened_safetensors


def read_tensors(path: Path, raised: type[AttributionError]) -> dict[str, Tensor]:
    """Every tensor of a safetensors file by name, memory-mapped.

    Raises:
        AttributionError: of the class `raised`.
    """
    with opened_safetensors(path, raised) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def is_finite(tensor: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether a tensor holds numbers alone, neither NaN nor infinity, also once it is of another dtype.

    Told by its extremes, which carry a NaN on: ten times as quick as a look at each, and without a copy of its size.
    """
    return not tensor.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(tensor)).to(dtype)).all())
