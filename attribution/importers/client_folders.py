"""What each client hands in, whatever it holds: a folder and its part of the average."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from attribution.bundle.manifest import ConsortiumId
from attribution.bundle.writing import require_client_ids
from attribution.errors import BundleError
from attribution.files.untrusted import short_repr

_MOST_LETTERS = 200  # of a name, as in the manifest


@dataclass(frozen=True)
class ClientFolder:
    """One client's adapter or checkpoint: `weight` is its part of the average before all weights are made to sum to 1.

    Attributes:
        client: its id.
        folder: what it handed in.
        weight: such as its number of examples.
        name: what people read in its place; None for its id.
    """

    client: str
    folder: Path
    weight: float = 1.0
    name: str | None = None

    @property
    def shown_name(self) -> str:
        """Its name, or its id where it has none."""
        return self.client if self.name is None else self.name


def total_weight(consortium: str, folders: Sequence[ClientFolder]) -> float:
    """The sum of the clients' weights, where the consortium's name, each id, name and weight are what they must be.

    Raises:
        BundleError: an id or a name is none, an id occurs twice, or a weight is not a positive number.
    """
    try:
        TypeAdapter(ConsortiumId).validate_python(consortium)
    except ValidationError as error:
        raise BundleError(f"consortium {consortium!r}: {error.errors()[0]['msg']}") from error
    require_client_ids([each.client for each in folders])
    for each in folders:
        if not (math.isfinite(each.weight) and each.weight > 0):
            raise BundleError(f"client {each.client!r}: weight {each.weight} is not a positive number")
        if not (
            0 < len(each.shown_name.strip()) <= len(each.shown_name) <= _MOST_LETTERS and each.shown_name.isprintable()
        ):
            raise BundleError(
                f"client {each.client!r}: name {short_repr(each.name)} is not 1 to {_MOST_LETTERS} printable characters"
            )
    total = sum(each.weight for each in folders)
    if not math.isfinite(total):
        raise BundleError("the sum of the clients' weights is infinite")
    return total
