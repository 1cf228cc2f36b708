"""What an experiment is: named cases that run on their own, and a summary that is derived from their rows alone.

A case is the unit of resuming: its rows are stored as JSON when it is done. Does not know any experiment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from attribution.evaluation.harness import Harness, Training
from attribution.evaluation.results import Summary
from attribution.files.strict import StrictDocument

ResultRow = dict[str, Any]
"""What one trial measured, by names of the experiment's own; stored as JSON."""
ResultRows = list[ResultRow]


class Settings(StrictDocument):
    """What every experiment may set; each has more of its own."""

    training: Training = Training()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    domains: tuple[str, ...] = ()
    max_new_tokens: int = Field(default=32, ge=1)


@dataclass(frozen=True)
class Experiment:
    """One experiment of the evaluation, by the parts that its YAML file sets in motion.

    `cases` names the pieces of work, `run` does one of them, and `summarise` turns the rows of all into figures; it
    must give the same summary for the same rows.
    """

    settings: type[Settings]
    cases: Callable[[Any, Harness], Sequence[str]]
    run: Callable[[str, Any, Harness], ResultRows]
    summarise: Callable[[Any, Mapping[str, ResultRows]], Summary]
