"""What was measured, by pair, server and number of streams; and the names of the servers. Pure."""

from dataclasses import dataclass, field

from tests.benchmarks.serving.loads import Load

EVERY, TENTH, OFF = "credit on every response", "credit on a tenth", "credit on one in a million"
PAPER, BFLOAT16, ENGINE = "paper on every response", "credit on a tenth, bfloat16", "engine alone"
MODES = ("peer, continuous batching", "peer, one at a time")
NARROW, MIDDLE, WIDE = 1, 8, 32


@dataclass
class Record:
    """What was measured.

    Attributes:
        loads: by pair, server and streams.
        memory: of each server, in bytes.
        measured: of each configuration of ours, which share of the tokens was credited to clients and commons.
    """

    loads: dict[tuple[int, str, int], Load] = field(default_factory=dict)
    memory: dict[str, list[int]] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)

    def load(self, pair: int, server: str, streams: int) -> Load | None:
        """One of them, where it was measured."""
        return self.loads.get((pair, server, streams))

    def of(self, server: str, streams: int) -> list[Load]:
        """All of one server at one number of streams."""
        return [load for (_, name, level), load in self.loads.items() if (name, level) == (server, streams)]

    def better_mode(self, pair: int, streams: int) -> Load | None:
        """The peer in the better of its modes that were measured."""
        loads = [load for mode in MODES if (load := self.load(pair, mode, streams)) is not None]
        return max(loads, key=lambda load: load.tokens_per_s, default=None)
