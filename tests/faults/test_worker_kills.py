"""SIGKILL of the real worker at random moments under streams: what applications saw is booked, exactly and once.

The model is small and its process is forked ready, so that tens of lives pass in a minute; a replica under Ray with
real weights is killed in `tests/end_to_end`. PROTOKEN_KILLS multiplies the kills for long runs.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from subprocess import Popen

import pytest

from rewards import Ledger
from tests.faults.lives import check, living, started
from tests.faults.writer import CLIENTS, CONSORTIUM

KILLS = 20 * int(os.environ.get("PROTOKEN_KILLS", "1"))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Popen[str]"]:
    """The program that lives are forked from."""
    with started(tmp_path_factory.mktemp("model")) as program:
        yield program


def test_killed_workers_lose_and_double_nothing(program: "Popen[str]", url: str, tmp_path: Path) -> None:
    """One worker after the other dies in the middle of six callers' responses, the next takes over its spool.

    Each response whose end was delivered has its receipt, of exactly the amounts that were told; what was cut is
    credited to within the last 16 tokens delivered; nothing else is booked.
    """
    ledger = Ledger(url)
    ledger.register(CONSORTIUM, CLIENTS)
    ledger.close()
    with living(program, tmp_path, url) as lives:
        chance = Random(lives.seed)
        for _ in range(KILLS):
            lives.kill_at_random(lives.begin(), chance)
        lives.settle()
        found = check(lives)
    print(found)

    assert KILLS == lives.kills
    assert found.ended > KILLS
    assert found.recovered > KILLS / 2, "hardly anything was under way when it was killed"
