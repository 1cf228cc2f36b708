"""The floor of what tests cover only rises."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_floor_of_coverage_was_never_higher():
    """As far as the history goes that git has here; a change may raise the floor, and never lower it."""
    command = ["git", "log", "--format=", "--patch", "-G^fail_under", "--", "pyproject.toml"]
    log = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    line = r"^[-+]fail_under = (\d+)  # of what the fast tests cover"
    floors = [int(floor) for floor in re.findall(line, log, re.MULTILINE)]
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert document["tool"]["coverage"]["report"]["fail_under"] >= max(floors, default=1)
