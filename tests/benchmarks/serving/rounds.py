"""Who is measured when: one server after another, again and again, never two at once."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil

from tests.benchmarks.serving.client import Server, drive
from tests.benchmarks.serving.engine import WARMING_TOKENS, drive_engine
from tests.benchmarks.serving.loads import Load
from tests.benchmarks.serving.ours import lacking, measured_share, our_service
from tests.benchmarks.serving.peer import peer_program, peer_service
from tests.benchmarks.serving.prompts import prompts_of_levels
from tests.benchmarks.serving.record import (
    BFLOAT16,
    ENGINE,
    EVERY,
    MIDDLE,
    MODES,
    NARROW,
    OFF,
    PAPER,
    TENTH,
    WIDE,
    Record,
)

WARMING = ("2, 4, 8, 16, 32, 64, 128,", "1, 10, 100, 1000, 10000,")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        bundle: whose weights are served.
        peer: folder of the peer's environment.
        levels: numbers of streams.
        pairs: how often each server is measured.
        each: responses of each stream.
        tokens: of each response.
        dtype: of ours and the peer's.
    """

    bundle: Path
    peer: Path
    levels: list[int]
    pairs: int
    each: int
    tokens: int
    dtype: str

    @property
    def prompts(self) -> dict[int, list[str]]:
        """For each number of streams its prompts."""
        return prompts_of_levels(self.levels, self.each)

    @property
    def settings(self) -> dict[str, tuple[Mapping[str, str], list[int]]]:
        """Our service's settings in each configuration, and at how many streams it is measured."""
        dtype = {"serve_dtype": self.dtype}
        some = {
            EVERY: ({"credit_fraction": "1"} | dtype, self.levels),
            TENTH: ({"credit_fraction": "0.1"} | dtype, self.levels),
            OFF: ({"credit_fraction": "0.000001"} | dtype, [MIDDLE]),
            PAPER: ({"method": "paper"} | dtype, [MIDDLE]),
            BFLOAT16: ({"credit_fraction": "0.1", "serve_dtype": "bfloat16"}, [WIDE]),
        }
        return {
            name: (each, [level for level in levels if level in self.levels]) for name, (each, levels) in some.items()
        }


def measure(plan: Plan) -> Record:
    """Everything, pair by pair.

    Raises:
        ProgramError: the peer cannot be had.
        StartError: our service did not start.
    """
    say("the peer's environment: minutes the first time")
    program, record = peer_program(plan.peer), Record()
    for pair in range(plan.pairs):
        with tempfile.TemporaryDirectory() as scratch:
            for name, levels, started in _contestants(plan, record, pair, program, Path(scratch)):
                _measure_server(plan, record, pair, name, levels, started)
        if NARROW in plan.levels:
            load = drive_engine(plan.bundle, plan.prompts[NARROW], plan.tokens, plan.dtype)
            record.loads[pair, ENGINE, NARROW] = load
            _tell(pair, ENGINE, load)
    return record


def _contestants(
    plan: Plan, record: Record, pair: int, program: Path, scratch: Path
) -> Iterator[tuple[str, list[int], Callable[[], AbstractContextManager[Server]]]]:
    """Name, numbers of streams, and what starts it, of each server; once its better mode is known, the peer in that."""
    for name, (settings, levels) in plan.settings.items():
        if missing := lacking(settings):
            if pair == 0:
                say(f"{name}: left out, as the service has no setting {', '.join(missing)}")
        else:
            yield name, levels, partial(our_service, plan.bundle, settings)
    for mode in MODES:
        levels = [
            level for level in plan.levels if pair == 0 or record.load(0, mode, level) is record.better_mode(0, level)
        ]
        weights = (plan.bundle / "global").absolute()
        yield mode, levels, partial(peer_service, program, weights, mode, plan.dtype, scratch / "peer.log")


def _measure_server(
    plan: Plan,
    record: Record,
    pair: int,
    name: str,
    levels: Sequence[int],
    started: Callable[[], AbstractContextManager[Server]],
) -> None:
    if not levels:
        return
    with started() as server:
        drive(server, WARMING, len(WARMING), WARMING_TOKENS)
        for streams in levels:
            before = _processor_s(server.pid)
            load = drive(server, plan.prompts[streams], streams, plan.tokens)
            load = replace(load, processor_s=_processor_s(server.pid) - before)
            record.loads[pair, name, streams] = load
            _tell(pair, name, load)
        record.memory.setdefault(name, []).append(_resident_bytes(server.pid))
        if server.ledger:
            record.measured.setdefault(name, []).append(measured_share(server.ledger))


def _resident_bytes(pid: int) -> int:
    """Memory of a process and of all that descend from it."""
    return sum(process.memory_info().rss for process in _family(pid))


def _processor_s(pid: int) -> float:
    """Processor time that they took so far."""
    return sum(sum(process.cpu_times()[:2]) for process in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _tell(pair: int, name: str, load: Load) -> None:
    say(f"pair {pair + 1}, {name}, {load.streams} streams: {load.tokens_per_s:.1f} tokens/s")


def say(what: str) -> None:
    """Progress, beside the figures."""
    print(what, file=sys.stderr, flush=True)
