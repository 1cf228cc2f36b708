"""How a benchmark measures and prints: medians of paired runs, a table for people, one JSON line for each figure."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
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


def paired_ratio(numerator: Callable[[], object], denominator: Callable[[], object], runs: int) -> tuple[float, str]:
    """Median over `runs` of time(numerator) / time(denominator), each pair back to back, in alternating order."""
    ratios, tops, bottoms = [], [], []
    for run in range(runs):
        order = (numerator, denominator) if run % 2 else (denominator, numerator)
        seconds = {}
        for each in order:
            started = time.perf_counter()
            each()
            seconds[each] = time.perf_counter() - started
        tops.append(seconds[numerator])
        bottoms.append(seconds[denominator])
        ratios.append(tops[-1] / bottoms[-1])
    medians = f"{statistics.median(tops):.2f} s / {statistics.median(bottoms):.2f} s"
    detail = f"{medians}, {runs} pairs, {min(ratios):.3f}–{max(ratios):.3f}"
    return statistics.median(ratios), detail


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
