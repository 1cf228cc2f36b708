"""What looks wrong in a bundle's updates, for people to look into: scaled, copied, sent again, empty, heavily weighted.

Warnings, not proofs: honest members can look alike. Does not check hashes or sums; `bundle` does.
"""

import statistics
from collections.abc import Iterator, Sequence

from attribution.bundle.bundle import Bundle
from attribution.bundle.manifest import RoundEntry
from attribution.bundle.similarity import cosines, norms

_SCALED = 3.0  # times the median norm of the others
_HEAVY = 2.0  # times an even share
_ALIKE = 0.95  # cosine


def suspicions(bundle: Bundle) -> tuple[str, ...]:
    """A sentence for each suspicion about the members' cumulative updates and weights, with its figures."""
    return (*_sizes(bundle), *_weights(bundle), *_likenesses(bundle), *round_suspicions(bundle.manifest.rounds or ()))


def round_suspicions(rounds: Sequence[RoundEntry]) -> tuple[str, ...]:
    """A sentence for each suspicion about what was sent and declared in recorded rounds; no update is read for it."""
    return (*_large_parts(rounds), *_replays(rounds))


def _large_parts(rounds: Sequence[RoundEntry]) -> Iterator[str]:
    """Updates far larger than the others of their round, and declared weights far beyond theirs."""
    for each in rounds:
        for what, values in (
            ("its update is", {update.client: update.norm for update in each.updates}),
            ("it declares", {update.client: update.declared for update in each.updates}),
        ):
            for client, value in values.items():
                others = [other for name, other in values.items() if name != client and other > 0]
                if others and value > _SCALED * (usual := statistics.median(others)):
                    times = value / usual
                    yield f"round {each.round}: client {client!r}: {what} {times:.1f} times the median of the others"


def _sizes(bundle: Bundle) -> Iterator[str]:
    lengths = dict(zip(bundle.client_ids, norms(list(bundle.updates.values())).tolist(), strict=True))
    for client, length in lengths.items():
        others = [other for name, other in lengths.items() if name != client and other > 0]
        if length == 0:
            yield f"client {client!r} changed nothing"
        elif others and length > _SCALED * statistics.median(others):
            times = length / statistics.median(others)
            yield f"client {client!r}: its update is {times:.1f} times as large as the median of the others; scaled?"


def _weights(bundle: Bundle) -> Iterator[str]:
    present = [client for client in bundle.manifest.clients if client.weight > 0]
    for client in present:
        if len(present) > 1 and client.weight > _HEAVY / len(present):
            even = client.weight * len(present)
            yield (
                f"client {client.id!r} has weight {client.weight:.3f}, {even:.1f} times an even share, by the"
                f" {client.examples if client.examples is not None else 'unknown number of'} examples it declares"
            )


def _likenesses(bundle: Bundle) -> Iterator[str]:
    clients = bundle.client_ids
    alike = cosines(list(bundle.updates.values()))
    for second, name in enumerate(clients):
        for first, other in enumerate(clients[:second]):
            cosine = float(alike[first, second])
            if cosine >= _ALIKE:
                yield f"clients {other!r} and {name!r}: their updates are alike, cosine {cosine:.3f}; copied?"


def _replays(rounds: Sequence[RoundEntry]) -> Iterator[str]:
    """Updates that were sent before, to the last bit; who hands back the global model only changed nothing."""
    first_sent: dict[str, tuple[str, int]] = {}
    for each in rounds:
        for update in each.updates:
            if update.sha256 == each.before_sha256:
                continue
            client, number = first_sent.setdefault(update.sha256, (update.client, each.round))
            if (client, number) != (update.client, each.round):
                yield (
                    f"client {update.client!r} sent in round {each.round} what {client!r} sent in round {number};"
                    f" {'replayed' if client == update.client else 'copied'}?"
                )
