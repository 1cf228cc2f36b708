"""Members who want more than they brought: what each attack submits, and what the aggregator then makes of it.

Each attack takes the honest updates of one round and gives what is submitted instead. Does not know what anyone earns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attribution.bundle.bundle import Bundle
from attribution.bundle.similarity import norms
from attribution.bundle.updates import LowRank, Update, weighted_sum
from attribution.bundle.writing import Member, write_bundle
from attribution.training.aggregation import Defences, aggregate


@dataclass(frozen=True)
class Submission:
    """What reaches the aggregator: updates and declared example counts by client, in the order of committing."""

    updates: Mapping[str, Update]
    examples: Mapping[str, int]


Attack = Callable[[Submission, str, int], Submission]


def scale_update(factor: float) -> Attack:
    """The attacker submits `factor` times its update."""

    def attack(honest: Submission, attacker: str, _: int) -> Submission:
        grown = weighted_sum([(factor, honest.updates[attacker])])
        return Submission({**honest.updates, attacker: grown}, honest.examples)

    return attack


def inflate_counts(factor: int) -> Attack:
    """The attacker declares `factor` times its examples."""

    def attack(honest: Submission, attacker: str, _: int) -> Submission:
        return Submission(honest.updates, {**honest.examples, attacker: factor * honest.examples[attacker]})

    return attack


def sybil(honest: Submission, attacker: str, _: int) -> Submission:
    """The attacker comes as two members, each with its update and half of its examples."""
    return _two_names(honest, attacker, honest.updates[attacker], honest.updates[attacker])


def opposed_sybil(honest: Submission, attacker: str, seed: int) -> Submission:
    """The attacker comes as two members, whose updates are its own plus and minus the same noise of half its norm."""
    own = honest.updates[attacker]
    noise = weighted_sum([(0.5, noise_like(own, seed))])
    return _two_names(honest, attacker, weighted_sum([(1, own), (1, noise)]), weighted_sum([(1, own), (-1, noise)]))


def copy_update(honest: Submission, attacker: str, _: int) -> Submission:
    """The attacker trains on nothing and submits, after it, the update of the first client."""
    victim = next(client for client in honest.updates if client != attacker)
    rest = {client: update for client, update in honest.updates.items() if client != attacker}
    return Submission({**rest, attacker: honest.updates[victim]}, honest.examples)


ATTACKS: Mapping[str, Attack] = {
    "honest": lambda honest, _attacker, _seed: honest,
    "scale-2": scale_update(2),
    "scale-10": scale_update(10),
    "scale-100": scale_update(100),
    "counts-10": inflate_counts(10),
    "sybil": sybil,
    "opposed-sybil": opposed_sybil,
    "copy": copy_update,
}


def attacked_bundle(
    submission: Submission, defences: Defences, base: str, target: Path
) -> tuple[Bundle, tuple[str, ...]]:
    """One round over what was submitted, written as a bundle; and what the defences had to say."""
    aggregation = aggregate(submission.updates, submission.examples, defences)
    members = [
        Member(
            id=client,
            name=client,
            examples=submission.examples[client],
            weight=aggregation.weights[client],
            cumulative=weighted_sum([(aggregation.weights[client], update)]),
            last_round=update,
        )
        for client, update in aggregation.updates.items()
    ]
    return write_bundle(target, "evaluation", base, 1, members), aggregation.remarks


def noise_like(update: Update, seed: int) -> Update:
    """Gaussian noise on the same parameters, low-rank where the update is, and of the same norm."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    low_rank = {name: LowRank(draw(factors.A), draw(factors.B)) for name, factors in update.low_rank.items()}
    noise = Update(low_rank, {name: draw(tensor) for name, tensor in update.dense.items()})
    own, other = norms([update, noise]).tolist()
    return weighted_sum([(own / other, noise)])


def _two_names(honest: Submission, attacker: str, first: Update, second: Update) -> Submission:
    names = f"{attacker}.a", f"{attacker}.b"
    updates = {client: update for client, update in honest.updates.items() if client != attacker}
    examples = {client: count for client, count in honest.examples.items() if client != attacker}
    half = honest.examples[attacker] // 2
    return Submission(
        {**updates, names[0]: first, names[1]: second},
        {**examples, names[0]: half, names[1]: honest.examples[attacker] - half},
    )
