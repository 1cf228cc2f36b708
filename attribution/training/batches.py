"""Which examples a client trains on, in which order: by chance that a recipe's seed decides, and nothing else."""

import hashlib
from collections.abc import Iterator, Sequence

import torch

from attribution.training.local import CachedExample


def batches_of(examples: Sequence[CachedExample], size: int, steps: int, seed: int) -> Iterator[list[CachedExample]]:
    """`steps` batches, running through a fresh permutation of the examples in each epoch."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    for _ in range(steps):
        while len(waiting) < min(size, len(examples)):
            waiting += torch.randperm(len(examples), generator=generator).tolist()
        taken, waiting = waiting[:size], waiting[size:]
        yield [examples[index] for index in taken]


def seed_of(seed: int, number: int, client: str) -> int:
    """The seed of one client's training in one round; of the draw of a round's clients where `client` is empty."""
    digest = hashlib.sha256(f"{seed}/{number}/{client}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
