"""What the aggregator makes of a round's updates: weights by declared examples, and defences against those who cheat.

With no defence chosen this is FedAvg (McMahan et al. 2017). Does not train, and does not know what anyone earns.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from attribution.bundle.similarity import cosines, norms
from attribution.bundle.updates import Update, weighted_sum
from attribution.errors import RecipeError
from attribution.files.strict import StrictDocument


class Defences(StrictDocument):
    """What the aggregator does against members who submit more than they learned; all off by default.

    `clip_to_median` scales an update down to the median norm of its round (norm clipping: Sun et al. 2019, "Can you
    really backdoor federated learning?"). `cap_counts` cuts a declared number of examples to this multiple of the
    median one. `drop_duplicates` leaves out an update whose cosine to one committed before it, to the same client's
    previous one or to the previous round's aggregate change is at least this; clients are listed in the order in which
    they committed, so of two alike the first stays.
    """

    clip_to_median: bool = False
    cap_counts: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    drop_duplicates: float | None = Field(default=None, ge=0.5, le=1)


NO_DEFENCES = Defences()


@dataclass(frozen=True)
class Previous:
    """What a replaying client could hand in again: the last round's `change`, and each client's last `submitted`."""

    change: Update
    submitted: Mapping[str, Update]


@dataclass(frozen=True)
class Aggregation:
    """One round as it was merged.

    `updates` are those that count, clipped; a client that was left out has an empty one and weight 0. `weights` ρ_i sum
    to 1. `change` is Σ ρ_i Δ_i. `remarks` say, a sentence each, what a defence did to whom.
    """

    updates: Mapping[str, Update]
    weights: Mapping[str, float]
    change: Update
    remarks: tuple[str, ...]


def aggregate(
    submitted: Mapping[str, Update],
    examples: Mapping[str, float],
    defences: Defences,
    previous: Previous | None = None,
) -> Aggregation:
    """Merge a round's updates, weighted by declared examples, under the chosen defences.

    Raises:
        RecipeError: no client's update is left.
    """
    remarks: list[str] = []
    left_out = _duplicates(submitted, defences.drop_duplicates, previous, remarks)
    kept = {client: update for client, update in submitted.items() if client not in left_out}
    if not kept:
        raise RecipeError("every client's update was left out as a duplicate; nothing is left to aggregate")
    counts = _cap_counts({client: examples[client] for client in kept}, defences.cap_counts, remarks)
    if defences.clip_to_median:
        kept = _clip_updates(kept, remarks)
    whole = sum(counts.values())
    weights = {client: counts[client] / whole if client in kept else 0.0 for client in submitted}
    change = weighted_sum([(weights[client], update) for client, update in kept.items()])
    updates = {client: kept.get(client, Update()) for client in submitted}
    return Aggregation(updates, weights, change, tuple(remarks))


def _duplicates(
    submitted: Mapping[str, Update], threshold: float | None, previous: Previous | None, remarks: list[str]
) -> set[str]:
    if threshold is None:
        return set()
    clients, updates = list(submitted), list(submitted.values())
    known: list[tuple[str, Update]] = [] if previous is None else [("the last round's change", previous.change)]
    alike = cosines([*updates, *(update for _, update in known)])
    left_out: set[str] = set()
    for index, client in enumerate(clients):
        rivals = [(f"the update of {other!r}", alike[index, place]) for place, other in enumerate(clients[:index])
                  if other not in left_out]  # fmt: skip
        rivals += [(what, alike[index, len(clients) + place]) for place, (what, _) in enumerate(known)]
        if previous is not None and client in previous.submitted:
            own = cosines([updates[index], previous.submitted[client]])[0, 1]
            rivals.append(("its own update of an earlier round", own))
        for what, cosine in rivals:
            if cosine >= threshold:
                remarks.append(f"client {client!r} was left out: cosine {float(cosine):.3f} to {what}")
                left_out.add(client)
                break
    return left_out


def _cap_counts(examples: Mapping[str, float], factor: float | None, remarks: list[str]) -> dict[str, float]:
    if factor is None:
        return dict(examples)
    cap = factor * statistics.median(examples.values())
    for client, count in examples.items():
        if count > cap:
            remarks.append(f"client {client!r} declared {count:g} examples, which were cut to {cap:g}")
    return {client: min(float(count), cap) for client, count in examples.items()}


def _clip_updates(kept: Mapping[str, Update], remarks: list[str]) -> dict[str, Update]:
    lengths = dict(zip(kept, norms(list(kept.values())).tolist(), strict=True))
    cap = statistics.median([length for length in lengths.values() if length > 0] or [0.0])
    clipped = dict(kept)
    for client, length in lengths.items():
        if length > cap:
            clipped[client] = weighted_sum([(cap / length, kept[client])])
            remarks.append(f"client {client!r} was clipped from norm {length:.4g} to the median {cap:.4g}")
    return clipped
