"""Which layers a stranger's regular expressions mean, as Python's `re` says and within seconds, whatever they are.

Does not know what a pattern is for.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

_WORKER = Path(__file__).with_name("pattern_worker.py")
_SECONDS = 3


class Pattern(NamedTuple):
    """A regular expression, and the method of `re` that it is meant for."""

    method: Literal["match", "fullmatch"]
    text: str


class PatternError(ValueError):
    """A pattern that is no regular expression, or that takes too long."""


def match_names(patterns: Sequence[Pattern], names: Sequence[str]) -> list[set[str]]:
    """For each pattern the names that it matches.

    Raises:
        PatternError: naming the pattern.
    """
    if not patterns:
        return []
    try:
        done = subprocess.run(  # noqa: S603 - our own file; the patterns are its input
            [sys.executable, "-I", "-S", str(_WORKER)],
            input=json.dumps([patterns, names]),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        longest = max((pattern.text for pattern in patterns), key=len)
        raise PatternError(f"matching {longest[:80]!r} takes more than {_SECONDS} s; name the layers instead") from None
    if done.returncode:
        raise PatternError(f"matching {patterns[0].text[:80]!r} failed; name the layers instead")
    answer = json.loads(done.stdout)
    if isinstance(answer, dict):
        raise PatternError(f"{answer['pattern'][:80]!r} is no regular expression: {answer['error'][:200]}")
    return [set(names_of_one) for names_of_one in answer]
