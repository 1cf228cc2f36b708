"""What a board's queries give, asked of a real Prometheus as Grafana asks it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.deployment.metrics.board_rules import variables_replaced
from tests.waiting import PATIENCE_S

LONGEST_S, POINTS = 6 * 3600, 360
Curve = tuple[str, list[float], list[float]]
"""Name, moments in seconds since 1970, and values, NaN where there is none."""


@dataclass(frozen=True)
class Source:
    """Where the figures come from and the time that is drawn, in seconds since 1970."""

    prometheus: httpx.Client
    start: float
    end: float
    step_s: float
    scrape_s: float

    def ask(self, path: str, expr: str, **more: float) -> list[dict[str, Any]]:
        """The result of a query with Grafana's variables replaced as Grafana replaces them."""
        window = f"{math.ceil(max(4 * self.scrape_s, self.step_s + self.scrape_s))}s"
        sent = variables_replaced(expr, window, f"{math.ceil(self.step_s)}s")
        answer = self.prometheus.get(path, params={"query": sent, **more})
        assert answer.is_success, f"{sent}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def curves(self, panel: dict[str, Any]) -> list[Curve]:
        """Every series of a graph: name, times and values, NaN where Prometheus has a gap."""
        found = []
        grid = [self.start + place * self.step_s for place in range(int((self.end - self.start) / self.step_s) + 1)]
        for target in panel["targets"]:
            times = {"start": self.start, "end": self.end, "step": self.step_s}
            for each in self.ask("query_range", target["expr"], **times):
                there = {round((float(at) - self.start) / self.step_s): float(text) for at, text in each["values"]}
                values = [there.get(place, math.nan) for place in range(len(grid))]
                found.append((name_of(target, each["metric"]), grid, values))
        return found

    def now(self, target: dict[str, Any]) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of a query at the end of the time."""
        return [(each["metric"], float(each["value"][1])) for each in self.ask("query", target["expr"], time=self.end)]


@contextmanager
def source_of(address: str) -> Iterator[Source]:
    """Prometheus over the time for which it has data, at most six hours, in at most so many steps as are drawn."""
    now = time.time()
    with httpx.Client(base_url=f"{address}/api/v1", timeout=PATIENCE_S) as prometheus:
        asked = {"query": "count(up)", "start": now - LONGEST_S, "end": now, "step": 2}
        answer = prometheus.get("query_range", params=asked).json()["data"]["result"]
        start = min((float(each["values"][0][0]) for each in answer), default=now - 60)
        targets = prometheus.get("targets").json()["data"]["activeTargets"]
        scrape = max((_seconds(target["scrapeInterval"]) for target in targets), default=15.0)
        step = max(scrape, math.ceil((now - start) / POINTS))
        yield Source(prometheus, start, start + math.floor((now - start) / step) * step, step, scrape)


def _seconds(text: str) -> float:
    """A duration of Prometheus such as `1s` or `1m30s`."""
    sizes = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    total, number = 0.0, ""
    for piece in text.replace("ms", "µ"):
        if piece.isdigit() or piece == ".":
            number += piece
        else:
            total, number = total + float(number) * sizes["ms" if piece == "µ" else piece], ""
    return total


def name_of(target: dict[str, Any], metric: dict[str, str]) -> str:
    """What a legend calls a series."""
    name = target["legendFormat"]
    for label, value in metric.items():
        name = name.replace(f"{{{{{label}}}}}", value)
    return name
