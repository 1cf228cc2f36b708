"""Tokens a second of the embedded engine, by the number of its rows."""

import time

from attribution.decoding.decode import Batch
from attribution.decoding.taps import Captures
from attribution.model import FederatedModel
from attribution.records import Sampling
from tests.benchmarks.gpu.model import random_ids

PROMPT_TOKENS = 32


def started_batch(model: FederatedModel, rows: int, tokens: int) -> Batch:
    """A batch of so many streams, the prompts of all of which have been run."""
    batch = Batch(model, captures=Captures.NONE)
    for number in range(rows):
        batch.join(f"row-{number}", random_ids(model, PROMPT_TOKENS, number), Sampling(max_new_tokens=tokens + rows))
    speaking: set[str] = set()
    while len(speaking) < rows:
        speaking |= {step.key for step in batch.step()}
    return batch


def tokens_per_s(model: FederatedModel, rows: int, tokens: int) -> float:
    """Of all rows together, once their prompts have been run."""
    batch = started_batch(model, rows, tokens)
    begin = time.perf_counter()
    made = sum(len(batch.step()) for _ in range(tokens))
    return made / (time.perf_counter() - begin)
