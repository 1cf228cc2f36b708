"""A tensor as its bytes: of NumPy or of PyTorch, in any layout and byte order, bfloat16 too.

Knows PyTorch by what its tensors offer, and does not import it. Knows no file and no hash.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution.errors import RoundsError

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""How many bytes a number takes, by the name that safetensors has for its type."""
NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "U16": "uint16", "I16": "int16", "F16": "float16", "BF16": "bfloat16",
    "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64",
}  # fmt: skip
"""What NumPy, ml_dtypes and PyTorch call the same types."""
_NO_NUMBER = {
    "F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F80_0000, "F64": 0x7FF0_0000_0000_0000, "F8_E4M3": 0x7F, "F8_E5M2": 0x7C,
}  # fmt: skip
"""The bits that are all set in what is infinite or no number, and in nothing else."""
_PIECE = 1 << 16  # numbers that are looked at together, so that they stay in the processor's cache
_CODES = {name: code for code, name in NAMES.items()}


@dataclass(frozen=True)
class Tensor:
    """Numbers with the name of their type, which NumPy alone may not know.

    Attributes:
        dtype: as safetensors names it, such as `F32` or `BF16`.
        values: the numbers, or for a type that NumPy does not know integers of the same bits.
    """

    dtype: str
    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return self.values.shape

    def little_endian(self) -> NDArray[np.uint8]:
        """Its bytes in C order, one after the other; copied only where they do not lie so."""
        values = self.values.astype(self.values.dtype.newbyteorder("<"), copy=False)
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8)

    def is_finite(self) -> bool:
        """Whether none of its numbers is infinite or NaN; looked at piece by piece."""
        if (mask := _NO_NUMBER.get(self.dtype)) is None:
            return True
        bits = self.little_endian().view(f"<u{ITEM_BYTES[self.dtype]}")
        pieces = (bits[start : start + _PIECE] for start in range(0, bits.size, _PIECE))
        return not any(((piece & mask) == mask).any() for piece in pieces)

    def is_finite_in_32_bits(self) -> bool:
        """The same, once its numbers are of 32 bits: what trains and serves a model has no more."""
        if self.dtype != "F64":
            return self.is_finite()
        numbers = self.little_endian().view("<f8")
        pieces = (numbers[start : start + _PIECE] for start in range(0, numbers.size, _PIECE))
        return all(bool((np.abs(piece) <= np.finfo(np.float32).max).all()) for piece in pieces)


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The sizes of each by its name."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def as_tensor(name: str, value: Any) -> Tensor:
    """A tensor of NumPy or PyTorch as its bytes.

    Raises:
        RoundsError: it is neither, or of numbers that no safetensors file holds.
    """
    if isinstance(value, Tensor):
        return value
    value = np.asarray(value) if isinstance(value, np.generic) else value
    if not isinstance(value, np.ndarray) and not hasattr(value, "detach"):
        raise RoundsError(f"tensor {name!r}: is a {type(value).__name__}, not an array of NumPy or PyTorch")
    called = value.dtype.name if isinstance(value, np.ndarray) else str(value.dtype).removeprefix("torch.")
    if called not in _CODES:
        raise RoundsError(f"tensor {name!r}: holds {called}; known are {', '.join(_CODES)}")
    code = _CODES[called]
    if not isinstance(value, np.ndarray):
        value = _values_of(value.detach().cpu(), code)
    elif value.dtype.kind not in "biuf":  # of ml_dtypes
        value = value.view(f"u{ITEM_BYTES[code]}")
    return Tensor(code, value)


def _values_of(value: Any, code: str) -> NDArray[Any]:
    """The numbers of PyTorch's tensor; integers of the same bits where NumPy has no such type."""
    if code in {"BF16", "F8_E4M3", "F8_E5M2"}:
        value = value.view(getattr(sys.modules["torch"], f"int{8 * ITEM_BYTES[code]}"))
    array: NDArray[Any] = value.numpy()
    return array
