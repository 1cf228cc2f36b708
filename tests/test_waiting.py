"""Tests wait in one way: for the first true value, with a failure that names what did not come."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until, until_up

HERE = Path(__file__).parent
OF_THEIR_OWN = {"benchmarks/mixed_load", "waiting.py", "test_waiting.py"}
"""Where a deadline is what is measured, and where waiting is defined."""


def test_the_first_true_value_is_given():
    """Whatever is untrue is asked again."""
    values = iter((None, 0, "", "there", "later"))

    assert "there" == until(lambda: next(values))


def test_what_does_not_come_is_named():
    """By the condition's source, or as the test says it, which may be known in the end only."""
    asked = []
    with pytest.raises(AssertionError, match=r"within 0\.02 s: .*lambda: asked == \[1\]"):
        until(lambda: asked == [1], 0.02)
    with pytest.raises(AssertionError, match="a bell"):
        until(lambda: False, 0.02, "a bell")
    with pytest.raises(AssertionError, match="a bell after asking 1"):
        until(lambda: asked.append(1), 0, lambda: f"a bell after asking {len(asked)}")


def test_a_program_that_ended_is_not_waited_for(tmp_path):
    """What it printed is told at once."""
    log = tmp_path / "log"
    with log.open("wb") as output, subprocess.Popen([sys.executable, "-c", "print('no bell')"], stdout=output) as ended:
        ended.wait()
        with pytest.raises(AssertionError, match="the bell ended while it started:\nno bell"):
            until_up("the bell", "http://127.0.0.1:9/", ended, log)


def test_nobody_waits_in_a_way_of_their_own():
    """No other test counts down to a deadline, whose patience would be that of its author's machine."""
    own = [
        path.relative_to(HERE).as_posix()
        for path in sorted(HERE.rglob("*.py"))
        if re.search(r"deadline = |def _?until\(", path.read_text(encoding="utf-8"))
    ]

    assert [] == [name for name in own if not name.startswith(tuple(OF_THEIR_OWN))]
