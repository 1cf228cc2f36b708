"""Seconds and memory of `credit`, by the length of what is scored, and what a dtype does to scores."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from attribution.attribute import attribute
from attribution.model import FederatedModel
from attribution.records import AttributedResponse, Generation
from attribution.scoring.credit_preset import Effort
from attribution.teacher_forcing import generation_of
from tests.benchmarks.gpu.model import random_ids
from tests.benchmarks.memory import peak_private_bytes

EFFORT = Effort(nodes=3)  # what most responses need
GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """What one response took: its score, one pass of the network over as many positions, and memory beyond weights."""

    seconds: float
    pass_seconds: float
    peak_bytes: int

    @property
    def passes(self) -> float:
        """Of how many passes a score takes the time."""
        return self.seconds / self.pass_seconds


def response_of(model: FederatedModel, positions: int, seed: int = 0) -> Generation:
    """A quarter of it prompt."""
    ids = random_ids(model, positions, seed)
    return generation_of(ids[: positions // 4], ids[positions // 4 :], temperature=1.0)


def cost_of(model: FederatedModel, positions: int) -> Cost:
    """Of a response of so many positions, the second time it is scored."""
    generation = response_of(model, positions)
    ids = torch.tensor([[*generation.prompt_token_ids, *generation.token_ids]], device=model.device)

    def score() -> None:
        attribute(model, generation, effort=EFFORT)

    def run() -> None:
        with torch.inference_mode():
            model.scored(input_ids=ids, use_cache=False, logits_to_keep=1)

    for warming in (score, run):
        warming()
    seconds, pass_seconds = _seconds(score, model.device), _seconds(run, model.device)
    return Cost(seconds, pass_seconds, peak_bytes(score, model.device))


def scores(model: FederatedModel, responses: int, positions: int) -> list[AttributedResponse]:
    """Of so many responses."""
    return [attribute(model, response_of(model, positions, seed), effort=EFFORT) for seed in range(responses)]


def furthest(exact: list[AttributedResponse], other: list[AttributedResponse]) -> float:
    """The largest difference of a score, as a part of the largest score of its response; the median response's."""
    pairs = zip(exact, other, strict=True)
    return statistics.median(_distance(one.response_scores, two.response_scores) for one, two in pairs)


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most memory that work takes beyond what was taken before."""
    if device.type != "cuda":
        before = peak_private_bytes(lambda: None)
        return peak_private_bytes(work) - before
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def _distance(exact: Mapping[str, float], other: Mapping[str, float]) -> float:
    return max(abs(exact[client] - other[client]) for client in exact) / max(map(abs, exact.values()))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
