"""Safetensors files that somebody else wrote; what is wrong is one line that names the file.

Apart from `foreign`, since it needs torch. Does not know what the tensors are for: who reads says which error is
raised.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from attribution.errors import AttributionError
from attribution.files.foreign import LFS_MARK, LFS_POINTER, in_one_line, require_file

_DISGUISES = (
    (LFS_MARK, LFS_POINTER),
    (b"PK\x03\x04", "is a zip archive or a PyTorch pickle, not safetensors: save it with safetensors"),
    (b"\x80", "is a pickle, which is never opened: save it with safetensors"),
    (b"GGUF", "is a GGUF file, not safetensors"),
    (b"<", "is a web page or XML, not safetensors: download the file itself"),
)


@contextmanager
def opened_safetensors(path: Path, raised: type[AttributionError]) -> Iterator[Any]:
    """A safetensors file as `safe_open` gives it, memory-mapped; whatever it raises names the file.

    Raises:
        AttributionError: of the class `raised`.
    """
    require_file(path, raised)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except AttributionError:
        raise
    except Exception as error:
        raise raised(
            f"{path}: {_disguise(path) or f'not a readable safetensors file: {in_one_line(error)}'}"
        ) from error


def read_tensors(path: Path, raised: type[AttributionError]) -> dict[str, Tensor]:
    """Every tensor of a safetensors file by name, memory-mapped.

    Raises:
        AttributionError: of the class `raised`.
    """
    with opened_safetensors(path, raised) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def _disguise(path: Path) -> str | None:
    """What a file that is no safetensors shows itself to be by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return None
    if not head:
        return "is empty"
    return next((what for mark, what in _DISGUISES if head.startswith(mark)), None)
