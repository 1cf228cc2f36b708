"""Times between the steps of streams while responses are scored in between, as a replica's one thread does it."""

import time

from attribution.attribute import credit_in_pieces
from attribution.model import FederatedModel
from deployment.replica.observer import Observer
from deployment.replica.scoring.scoring_order import ScoringTask
from deployment.replica.scoring.scoring_queue import ScoringQueue
from tests.benchmarks.gpu.decoding import started_batch
from tests.benchmarks.gpu.scoring import EFFORT, response_of
from tests.benchmarks.serving.loads import percentile


class _Nobody(Observer):
    """Is told, and does nothing."""


def between_steps(model: FederatedModel, rows: int, tokens: int, positions: int) -> tuple[float, float]:
    """Median and 99th percentile of seconds between two steps, with a response to score at any time."""
    batch = started_batch(model, rows, tokens)
    queue = ScoringQueue(model, credit_in_pieces, EFFORT, _Nobody())
    times = []
    for number in range(tokens):
        if not len(queue):
            queue.put(ScoringTask(response_of(model, positions, number), False, False, _require_score, _fail))
        begin = time.perf_counter()
        batch.step()
        queue.advance(time.perf_counter() - begin)
        times.append(time.perf_counter() - begin)
    return percentile(times, 50), percentile(times, 99)


def _require_score(outcome: object) -> None:
    if isinstance(outcome, Exception):
        raise outcome


def _fail() -> None:
    raise AssertionError("a response was given up")
