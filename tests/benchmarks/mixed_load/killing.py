"""Processes that are killed by their id, and the memory of all that serve. Knows no request."""

import asyncio
import os
import signal
import statistics
from dataclasses import dataclass, field
from random import Random

import psutil

VICTIMS = (":replica", ":scorer")
SAMPLE_S = 2.0


@dataclass
class Family:
    """The processes of a service, by the one that everything descends from.

    Attributes:
        kills: processes that were killed.
        samples: (seconds since the begin, bytes of all) whenever a model was in memory.
    """

    pid: int
    kills: int = 0
    samples: list[tuple[float, int]] = field(default_factory=list)

    async def kill_again_and_again(self, every_s: float, chance: Random) -> None:
        """One that holds a model, every so many seconds, for as long as this is not cancelled."""
        while True:
            await asyncio.sleep(every_s)
            victims = self._victims()
            if victims:
                os.kill(chance.choice(victims).pid, signal.SIGKILL)
                self.kills += 1

    async def watch(self) -> None:
        """Sample the memory of all, for as long as this is not cancelled."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        while True:
            await asyncio.sleep(SAMPLE_S)
            if self._victims():
                self.samples.append((clock() - begin, sum(map(_resident_bytes, self._all()))))

    def growth(self, total_s: float) -> float:
        """Memory in the last minute over that in the second: of shorter runs, in as large parts of them."""
        early, late = self.most_bytes(total_s, 0.1, 0.2), self.most_bytes(total_s, 0.9, 1.0)
        return late / early

    def most_bytes(self, total_s: float, begin: float, end: float) -> float:
        """The upper decile of the samples in a part of the run, which models that are being loaded do not move."""
        part = [size for at, size in self.samples if begin * total_s <= at <= end * total_s]
        if len(part) < 2:
            return float(part[0]) if part else float("nan")
        return statistics.quantiles(part, n=10, method="inclusive")[-1]

    def _all(self) -> list[psutil.Process]:
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def _victims(self) -> list[psutil.Process]:
        return [process for process in self._all() if any(part in _title(process) for part in VICTIMS)]


def _title(process: psutil.Process) -> str:
    """What a process calls itself; nothing where it has just ended."""
    try:
        return "".join(process.cmdline()).strip()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
