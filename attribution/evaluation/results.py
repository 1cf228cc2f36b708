"""What an experiment found, as it is stored and reported: figures with their uncertainty, plots as data, notes.

Does not know how anything was measured, nor how a report looks.
"""

from typing import Literal

from pydantic import Field

from attribution.files.strict import StrictDocument


class Figure(StrictDocument):
    """One measured number.

    `n` counts the observations behind it; `low` and `high` bound its 95 % interval (Wilson 1927 for a proportion);
    `chance` is what guessing reaches. `target` is met from above (`at_least`) or from below; without one the figure
    informs only. `note` says what a reader must know, such as why a target was missed.
    """

    name: str
    value: float
    n: int = Field(ge=0)
    unit: Literal["proportion", "share", "ratio", "correlation", "nats", "seconds", "relative error"]
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None where there is none. Nothing measured meets none."""
        if self.target is None:
            return None
        if self.n == 0:
            return False
        return self.value >= self.target if self.at_least else self.value <= self.target


class Plot(StrictDocument):
    """A picture as data: named series of (x, y), drawn as lines, as a scatter or as bars.

    `categories` name the x values 0, 1, 2 … of bars and of lines over named things. `target` is a horizontal line;
    `diagonal` draws y = x, for predicted against true;
    `parts` shows y from 0 to 1.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    kind: Literal["lines", "scatter", "bars"]
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float]]]
    categories: list[str] = Field(default_factory=list)
    log_y: bool = False
    target: float | None = None
    diagonal: bool = False
    parts: bool = False


class Summary(StrictDocument):
    """What an experiment derives from its cases; `coverage` is the part of what was asked that could be evaluated."""

    figures: list[Figure]
    plots: list[Plot] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    coverage: float | None = None


class Result(StrictDocument):
    """`result.json` of one experiment: the summary, and everything needed to run it again.

    `data` maps a domain to the SHA-256 of its file; `settings` are the experiment's own, `seeds` those that were used;
    `coverage` is the part of the responses asked for that could be evaluated.
    """

    experiment: str
    title: str
    question: str
    profile: Literal["full", "quick"]
    model: str
    data: dict[str, str]
    seeds: list[int]
    coverage: float | None
    settings: dict[str, object]
    version: str
    finished: str
    seconds: float
    figures: list[Figure]
    plots: list[Plot]
    notes: list[str]
