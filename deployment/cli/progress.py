"""How the command line tells how far long work is: a bar in a terminal, and now and then a line anywhere else."""

import sys
import time
from collections.abc import Callable
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rewards.files.plain_text import one_line

INTERVAL_S = 10.0
"""How long nothing is said in a log or a pipe: work that is done by then says nothing at all."""


class ProgressBar:
    """How far work is, on stderr; an `attribution.progress.Progress`."""

    def __init__(self) -> None:
        stderr = Console(stderr=True)
        self._lines = ProgressLines(sys.stderr, INTERVAL_S) if not stderr.is_terminal else None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=stderr,
            disable=not stderr.is_terminal,  # else it would leave its last state as a line
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, description: str, total: int) -> None:
        """A new stage of `total` pieces begins."""
        self._task = self._progress.add_task(one_line(description), total=total)
        if self._lines is not None:
            self._lines.start(description, total)

    def advance(self) -> None:
        """One piece of the stage is done."""
        self._progress.advance(self._task)
        if self._lines is not None:
            self._lines.advance()


class ProgressLines:
    """A line every so often, for who reads a log; an `attribution.progress.Progress`.

    Args:
        out: where they go.
        interval_s: how long nothing is said.
        clock: tells the time, in seconds.
    """

    def __init__(self, out: TextIO, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._interval_s = interval_s
        self._clock = clock
        self._began = self._said = clock()
        self._description, self._done, self._total = "", 0, 0

    def start(self, description: str, total: int) -> None:
        """A new stage of `total` pieces begins."""
        self._description, self._done, self._total = one_line(description), 0, total
        self._say_at_times()

    def advance(self) -> None:
        """One piece of the stage is done."""
        self._done += 1
        self._say_at_times()

    def _say_at_times(self) -> None:
        now = self._clock()
        if now - self._said >= self._interval_s:
            self._said = now
            far = f"{self._done} of {self._total}"
            self._out.write(f"{self._description}: {far}, {now - self._began:.0f} s\n")
            self._out.flush()
