"""How a benchmark prints: a table for people, one JSON line for each figure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured figure; `ok` where it is at most (or at least) its target."""

    name: str
    value: float
    target: float
    at_least: bool = False
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


def print_figures(bench: str, figures: Sequence[Figure]) -> None:
    """The table, then the JSON lines."""
    table = Table(title=f"bench-{bench}")
    for column in ("figure", "value", "target", "ok", "how"):
        table.add_column(column)
    for figure in figures:
        sign = "≥" if figure.at_least else "≤"
        value = f"{figure.value:.3f}"
        table.add_row(figure.name, value, f"{sign} {figure.target:g}", "yes" if figure.ok else "NO", figure.detail)
    Console(width=150).print(table)
    for figure in figures:
        line = {
            "bench": bench,
            "figure": figure.name,
            "value": round(figure.value, 4),
            "target": figure.target,
            "ok": figure.ok,
        }
        print(json.dumps(line), flush=True)
