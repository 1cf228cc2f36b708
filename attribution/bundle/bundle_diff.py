"""What differs between two bundles, client by client: who joined or left, and how far each update went, and where to.

Low-rank updates are never multiplied out. Does not check hashes or sums; `bundle` does.
"""

import math
from dataclasses import dataclass

from attribution.bundle.bundle import Bundle
from attribution.bundle.manifest import ClientEntry
from attribution.bundle.similarity import gram
from attribution.errors import BundleError


@dataclass(frozen=True)
class ClientChange:
    """One client in two bundles; None where it is not in one of them.

    Attributes:
        client: its id.
        weights: ρ of the last round, before and after.
        norms: Frobenius norms of its weighted cumulative update D, before and after.
        distance: Frobenius norm of D after less D before; of a bundle that it is not in, D is zero.
        cosine: between D before and after; None where it is in one bundle alone, or one of them is zero.
    """

    client: str
    weights: tuple[float | None, float | None]
    norms: tuple[float | None, float | None]
    distance: float
    cosine: float | None

    @property
    def state(self) -> str:
        """`joined`, `left`, `changed` or `unchanged`."""
        before, after = self.norms
        if before is None:
            return "joined"
        if after is None:
            return "left"
        return "changed" if self.distance else "unchanged"


def client_changes(before: Bundle, after: Bundle) -> tuple[ClientChange, ...]:
    """Every client of either bundle, in the order of the later one; then those who left.

    Raises:
        BundleError: they stand on different base models, so that their updates cannot be held against each other; or an
            update cannot be read.
    """
    if before.manifest.base.sha256 != after.manifest.base.sha256:
        raise BundleError(
            f"{before.path} is of base model {before.manifest.base.reference} and {after.path} of"
            f" {after.manifest.base.reference}, whose files differ: their updates cannot be compared"
        )
    earlier, later = ({client.id: client for client in bundle.manifest.clients} for bundle in (before, after))
    return tuple(
        _change(client, (before, earlier.get(client)), (after, later.get(client))) for client in later | earlier
    )


def _change(
    client: str, before: tuple[Bundle, ClientEntry | None], after: tuple[Bundle, ClientEntry | None]
) -> ClientChange:
    entries = [entry for _, entry in (before, after)]
    updates = [bundle.updates[client] for bundle, entry in (before, after) if entry is not None]
    products = gram(updates)
    lengths = iter(products.diagonal().clamp(min=0).sqrt().tolist())
    first, second = (None if entry is None else next(lengths) for entry in entries)
    distance, cosine = (first if second is None else second) or 0.0, None
    if first is not None and second is not None:
        inner = float(products[0, 1])
        is_same = len({entry.sha256 for entry in entries if entry is not None}) == 1
        square = float(products[0, 0] + products[1, 1]) - 2 * inner
        distance = 0.0 if is_same else math.sqrt(max(0.0, square))
        cosine = max(-1.0, min(1.0, inner / (first * second))) if first and second else None
    weights = tuple(None if entry is None else entry.weight for entry in entries)
    return ClientChange(client, (weights[0], weights[1]), (first, second), distance, cosine)
