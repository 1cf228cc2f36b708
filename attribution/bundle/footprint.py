"""How much a bundle holds, told from the heads of its files: nothing is read into memory.

Does not know how much there is room for.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from attribution.bundle.bundle import manifest_of
from attribution.bundle.updates import is_factor
from attribution.errors import BundleError
from attribution.files.safetensors_files import opened_safetensors

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # of a number; an update of another type is refused when it is read


@dataclass(frozen=True)
class BundleSizes:
    """What a bundle holds.

    Attributes:
        weights: numbers in the served weights.
        clients: how many there are.
        dense_bytes: the whole differences of all clients.
    """

    weights: int
    clients: int
    dense_bytes: int


def sizes_of(path: Path) -> BundleSizes:
    """The sizes of the bundle at `path`.

    Raises:
        BundleError: a file of it is missing or malformed.
    """
    manifest = manifest_of(path)
    weights = sum(
        math.prod(shape)
        for file in sorted((path / manifest.global_.path).glob("*.safetensors"))
        for _, shape, _ in _tensors(file)
    )
    dense = sum(
        math.prod(shape) * size
        for client in manifest.clients
        for name, shape, size in _tensors(path / client.path)
        if not is_factor(name)
    )
    return BundleSizes(weights, len(manifest.clients), dense)


def _tensors(file: Path) -> list[tuple[str, list[int], int]]:
    """Name, shape and bytes of a number of each tensor."""
    with opened_safetensors(file, BundleError) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        return [(name, each.get_shape(), _BYTES.get(each.get_dtype(), 1)) for name, each in slices.items()]
