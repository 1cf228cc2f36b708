"""Safetensors files that somebody else wrote, opened without torch; what is wrong is one line that names the file.

Does not know what the tensors are for: who reads says which error is raised.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open

from attribution.errors import AttributionError
from attribution.files.untrusted import LFS_MARK, LFS_POINTER, in_one_line, require_file

_MOST_LETTERS = 500  # of the name of a tensor
_DISGUISES = (
    (LFS_MARK, LFS_POINTER),
    (b"PK\x03\x04", "is a zip archive or a PyTorch pickle, not safetensors: save it with safetensors"),
    (b"\x80", "is a pickle, which is never opened: save it with safetensors"),
    (b"GGUF", "is a GGUF file, not safetensors"),
    (b"<", "is a web page or XML, not safetensors: download the file itself"),
)


@contextmanager
def opened_safetensors(
    path: Path, raised: type[AttributionError], framework: Literal["pt", "np"] = "pt"
) -> Iterator[Any]:
    """A safetensors file as `safe_open` gives it, memory-mapped; whatever it raises names the file.

    Raises:
        AttributionError: of the class `raised`.
    """
    require_file(path, raised)
    try:
        with safe_open(path, framework=framework) as file:
            _require_short_names(path, file.keys(), raised)
            yield file
    except AttributionError:
        raise
    except Exception as error:
        raise raised(
            f"{path}: {_disguise(path) or f'not a readable safetensors file: {in_one_line(error)}'}"
        ) from error


def _require_short_names(path: Path, names: Iterable[str], raised: type[AttributionError]) -> None:
    """Refuse names that no model has, before a refusal of something else is as long as one of them."""
    for name in names:
        if len(name) > _MOST_LETTERS:
            raise raised(f"{path}: the name of a tensor has {len(name)} letters; more than {_MOST_LETTERS} are refused")


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
