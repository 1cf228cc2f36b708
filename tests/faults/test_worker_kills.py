"""SIGKILL of the real worker at random moments under streams: what applications saw is booked, exactly and once.

The model is small and its process is forked ready, so that tens of lives pass in a minute; a replica under Ray with
real weights is killed in `tests/end_to_end`. PROTOKEN_KILLS multiplies the kills for long runs.
"""

import os
from pathlib import Path
from random import Random
from subprocess import Popen

import pytest

from tests.faults.lives import check, living

pytestmark = pytest.mark.slow

KILLS = 20 * int(os.environ.get("PROTOKEN_KILLS", "1"))


def test_killed_workers_lose_and_double_nothing(program: "Popen[str]", url: str, tmp_path: Path) -> None:
    """One worker after the other dies in the middle of six callers' responses, the next takes over its spool.

    Every other one dies in the very moment in which it has delivered the end of a response; the rest at any moment.
    Each response whose end was delivered has its receipt, of exactly the amounts that were told; what was cut is
    credited to within the last 16 tokens delivered; nothing else is booked.
    """
    with living(program, tmp_path, url) as lives:
        chance = Random(lives.seed)
        for _ in range(KILLS // 2):
            lives.kill_at_random(lives.begin(), chance)
            lives.begin(dies_after=chance.randint(1, 9)).await_death()
        lives.settle()
        found = check(lives)
    print(found)

    assert KILLS == lives.kills
    assert found.ended > KILLS
    assert found.recovered > KILLS / 2, "hardly anything was under way when it was killed"
