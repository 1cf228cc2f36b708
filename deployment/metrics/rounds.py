"""What published bundles record of their rounds, each read once from where it lies. Knows no ledger and no series."""

from dataclasses import dataclass
from pathlib import Path

from deployment.errors import PartLostError
from deployment.members.round_record import read_published
from deployment.members.signatures import unsigned_updates


@dataclass(frozen=True)
class RoundFigures:
    """Figures of one bundle.

    Attributes:
        residual_ratio: of its last round; None where its clients changed nothing in it.
        unsigned: how many of its updates carry no statement.
    """

    residual_ratio: float | None
    unsigned: int


class RoundReader:
    """Reads bundles as they are asked for, and remembers those that it could read; from one thread at a time."""

    def __init__(self) -> None:
        self._figures: dict[str, RoundFigures | None] = {}

    def read(self, folder: Path, manifest_sha256: str) -> RoundFigures | None:
        """The figures of a bundle; None where no rounds were recorded, or the bundle cannot be read here now."""
        if manifest_sha256 not in self._figures:
            try:
                manifest = read_published(folder, manifest_sha256)
            except PartLostError:
                return None
            last = manifest.rounds[-1] if manifest.rounds else None
            unsigned = sum(unsigned_updates(manifest).values())
            self._figures[manifest_sha256] = None if last is None else RoundFigures(last.residual_ratio, unsigned)
        return self._figures[manifest_sha256]
