"""Tensors in a safetensors file: written without a second copy of them, hashed without loading them.

safetensors itself checks the head of a file; what is here reads the bytes after it, since NumPy has no bfloat16.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import TensorSpec, serialize_file

from attribution.errors import RoundsError
from attribution.files.durable import sync
from attribution.files.safetensors_files import opened_safetensors
from attribution.rounds.hashing import Digest, combined_sha256
from attribution.rounds.tensor_bytes import ITEM_BYTES, NAMES, as_tensor

_PIECE_BYTES = 1 << 20
_MOST_TENSORS = 1_000_000


@dataclass(frozen=True)
class StoredTensors:
    """What a file holds: the hash of all (`hashing.tensors_sha256`), and the sizes of each by name."""

    sha256: str
    shapes: dict[str, tuple[int, ...]]


def store_tensors(path: Path, tensors: Mapping[str, Any]) -> StoredTensors:
    """Write tensors of NumPy or PyTorch to a file, on the disk when this returns; copied is only what lies oddly.

    Raises:
        RoundsError: one is no array, or of numbers that no safetensors file holds.
    """
    digests: dict[str, Digest] = {}
    specs: dict[str, TensorSpec] = {}
    kept: list[NDArray[np.uint8]] = []  # a spec is an address, and keeps nothing alive
    for name, value in tensors.items():
        tensor = as_tensor(name, value)
        data = tensor.little_endian()
        kept.append(data)
        digests[name] = Digest(tensor.dtype, tensor.shape, hashlib.sha256(data.data).digest())
        specs[name] = TensorSpec(
            dtype=NAMES[tensor.dtype], shape=tensor.shape, data_ptr=data.ctypes.data, data_len=data.nbytes
        )
    serialize_file(specs, path)
    sync(path)
    return StoredTensors(combined_sha256(digests), {name: digest.shape for name, digest in digests.items()})


def read_stored(path: Path, model: StoredTensors | None = None) -> StoredTensors:
    """What a file holds, hashed in one pass through it and in bounded memory.

    Where it is known which `model` it is of, its head is held against that first: a file with holes may claim
    terabytes, and nobody waits for the hash of those.

    Raises:
        RoundsError: it is no regular file, no safetensors file, of numbers that are not known here, or does not fit.
    """
    if path.is_symlink():
        raise RoundsError(f"{path}: is a link; the file itself is needed")
    with opened_safetensors(path, RoundsError, "np") as opened:
        names = opened.offset_keys()
        if len(names) > _MOST_TENSORS:
            raise RoundsError(f"{path}: holds {len(names)} tensors; more than {_MOST_TENSORS} are refused")
        slices = {name: opened.get_slice(name) for name in names}
        heads = {name: (str(each.get_dtype()), tuple(each.get_shape())) for name, each in slices.items()}
    shapes = {name: shape for name, (_, shape) in heads.items()}
    if model is not None and (problem := misfit(shapes, model.shapes)) is not None:
        raise RoundsError(f"{path}: {problem}")
    digests = {}
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        for name, (dtype, shape) in heads.items():
            if dtype not in ITEM_BYTES:
                raise RoundsError(f"{path}: tensor {name!r} holds {dtype}; known are {', '.join(ITEM_BYTES)}")
            digests[name] = Digest(dtype, shape, _sha256_of_next(file, math.prod(shape) * ITEM_BYTES[dtype], path))
    return StoredTensors(combined_sha256(digests), shapes)


def misfit(shapes: Mapping[str, tuple[int, ...]], model: Mapping[str, tuple[int, ...]]) -> str | None:
    """How the names or sizes of tensors differ from the model's; None where they are the same."""
    for name in sorted(shapes.keys() ^ model.keys()):
        return f"tensor {name!r} is {'missing' if name in model else 'not in the model'}"
    for name, shape in shapes.items():
        if shape != model[name]:
            return f"tensor {name!r} has the sizes {list(shape)}, and in the model {list(model[name])}"
    return None


def _sha256_of_next(file: BinaryIO, size: int, path: Path) -> bytes:
    digest = hashlib.sha256()
    while size:
        piece = file.read(min(size, _PIECE_BYTES))
        if not piece:
            raise RoundsError(f"{path}: ends before its last tensor does")
        digest.update(piece)
        size -= len(piece)
    return digest.digest()
