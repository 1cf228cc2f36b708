"""How tests wait: in one way, with one patience, for whatever will come.

A wait that is satisfied costs nothing, so the patience is that of the slowest machine. Where a test is about how
quickly something comes, the bound is its own, and is given.
"""

import inspect
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

__all__ = ["PATIENCE_S", "is_up", "until", "until_up"]

T = TypeVar("T")

PATIENCE_S = 600
"""What anything that will come has to come in."""
ANSWER_S = 10
"""How long one question of a wait may take, which is asked again."""


def until(condition: Callable[[], T], timeout_s: float = PATIENCE_S, what: str | Callable[[], str] = "") -> T:
    """The first true value of a condition, which is asked at once, and then ever more seldom.

    Each pause is a tenth of what was waited: what comes in milliseconds is not waited for in hundredths, and a machine
    that starts a service for a minute is not kept busy with being asked.

    Args:
        condition: what is asked.
        timeout_s: how long.
        what: as a failure names what did not come; the condition's source where nothing is given.

    Raises:
        AssertionError: it did not come.
    """
    begin = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - begin
        if waited > timeout_s:
            named = what() if callable(what) else what
            raise AssertionError(f"it did not come within {timeout_s:g} s: {named or _source(condition)}")
        time.sleep(min(max(waited / 10, 0.005), 0.2))
    return value


def until_up(
    what: str, address: str, process: "subprocess.Popen[bytes]", log: Path, timeout_s: float = PATIENCE_S
) -> None:
    """Return when a program answers at an address; where it has ended, fail at once, with what it printed.

    Raises:
        AssertionError: it ended, or did not answer.
    """

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"{what} ended while it started:\n{log.read_text(errors='replace')}")
        return is_up(address)

    until(answers, timeout_s, lambda: f"an answer of {what}, which printed\n{log.read_text(errors='replace')}")


def is_up(address: str) -> bool:
    """Whether somebody answers at an address, and well."""
    with suppress(httpx.TransportError):
        return httpx.get(address, timeout=ANSWER_S).is_success
    return False


def _source(condition: Callable[[], Any]) -> str:
    """The lines of a condition that was written where it is waited for; the name of any other."""
    if getattr(condition, "__name__", "") == "<lambda>":
        with suppress(OSError):
            return " ".join(inspect.getsource(condition).split())
    return getattr(condition, "__qualname__", repr(condition))
