"""The one hash of many tensors: the same for whoever sends them, whoever keeps them and whoever reads the file.

It does not depend on the framework, on the order of the tensors, nor on how memory or a file lays them out. It is the
SHA-256 of a text that begins with `protoken-tensors/1` and a line feed; then come, by the order of their names' UTF-8
bytes, the tensors: name, type, number of sizes, each size, and the SHA-256 of the tensor's little-endian bytes in C
order. Numbers are of eight bytes, little-endian; before a name and a type stands how many bytes it has. So a file is
hashed in one pass, whatever the order in it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attribution.rounds.tensor_bytes import as_tensor

_BEGINNING = b"protoken-tensors/1\n"


@dataclass(frozen=True)
class Digest:
    """What is hashed of one tensor: its type as safetensors names it, its sizes, and the SHA-256 of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    sha256: bytes


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """The hash of tensors by name; they may be arrays of NumPy or PyTorch.

    Raises:
        RoundsError: one is no array, or of numbers that no safetensors file holds.
    """
    return combined_sha256({name: _digest(name, value) for name, value in tensors.items()})


def combined_sha256(digests: Mapping[str, Digest]) -> str:
    """The hash of tensors of which each has been hashed."""
    whole = hashlib.sha256(_BEGINNING)
    for name, digest in sorted((name.encode(), digest) for name, digest in digests.items()):
        for text in (name, digest.dtype.encode()):
            whole.update(_number(len(text)) + text)
        for number in (len(digest.shape), *digest.shape):
            whole.update(_number(number))
        whole.update(digest.sha256)
    return whole.hexdigest()


def _digest(name: str, value: Any) -> Digest:
    tensor = as_tensor(name, value)
    return Digest(tensor.dtype, tensor.shape, hashlib.sha256(tensor.little_endian().data).digest())


def _number(number: int) -> bytes:
    return number.to_bytes(8, "little")
