"""A picture of a Grafana board without Grafana: its panels' own queries, asked of a real Prometheus.

Places, titles, units, legends and thresholds are those of the board's JSON. `python -m tests.pictures.boards
configs/grafana/dashboards/protoken-service.json http://127.0.0.1:9090 service.png` draws one.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tests.pictures.source import Curve, Source, name_of, source_of
from tests.pictures.units import shown

UNIT_PX, COLUMN_PX, GAP_PX, HEAD_PX, FOOT_PX, DPI = 38, 80, 8, 92, 44, 100
GROUND, PANEL, EDGE, TEXT, FAINT = "#111217", "#181b1f", "#2f333a", "#d8d9df", "#9a9ba5"
PALETTE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff9830", "#f2495c", "#5794f2", "#b877d9", "#e0c266", "#70dbed", "#c4a5f5",
    "#96d98d", "#ffb357",
)  # fmt: skip
NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}


def render(board_json_path: str | Path, prometheus_address: str, out_path: str | Path) -> list[str]:
    """Draw a board to a PNG or SVG file, over the time for which Prometheus has data, at most six hours.

    Returns:
        The titles of the panels that had no data, and say so in the picture.
    """
    board = json.loads(Path(board_json_path).read_text(encoding="utf-8"))
    width = 24 * COLUMN_PX + 2 * GAP_PX
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    height = HEAD_PX + rows * UNIT_PX + FOOT_PX
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=GROUND)
    FigureCanvasAgg(figure)
    style = {"font.size": 8, "text.color": TEXT, "font.family": "DejaVu Sans", "svg.fonttype": "path"}
    with mpl.rc_context(style), source_of(prometheus_address) as source:
        _heading(figure, board, source, width, height)
        empty = [panel["title"] for panel in board["panels"] if not _drawn(figure, panel, source, width, height)]
        figure.savefig(out_path, facecolor=GROUND)
    return empty


def _drawn(figure: Figure, panel: dict[str, Any], source: Source, width: int, height: int) -> bool:
    """Draw a panel in its place; whether there was something to draw."""
    place = panel["gridPos"]
    box = _Box(
        GAP_PX + place["x"] * COLUMN_PX + GAP_PX / 2,
        height - HEAD_PX - (place["y"] + place["h"]) * UNIT_PX + GAP_PX / 2,
        place["w"] * COLUMN_PX - GAP_PX,
        place["h"] * UNIT_PX - GAP_PX,
        width,
        height,
    )
    if panel["type"] == "row":
        box.write(figure, 4, box.height / 2, f"▾  {panel['title']}", size=11, weight="bold", va="center")
        return True
    return _DRAWN[panel["type"]](figure, box, panel, source)


@dataclass(frozen=True)
class _Box:
    """A rectangle of the picture, in pixels from the lower left corner."""

    left: float
    bottom: float
    width: float
    height: float
    all_width: float
    all_height: float

    def axes(self, figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
        """Axes within the box, so many pixels from its sides."""
        x, y = self.left + left, self.bottom + bottom
        w, h = self.width - left - right, self.height - bottom - top
        return figure.add_axes((x / self.all_width, y / self.all_height, w / self.all_width, h / self.all_height))

    def write(self, figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
        """Text within the box, so many pixels from its lower left corner."""
        figure.text((self.left + x) / self.all_width, (self.bottom + y) / self.all_height, text, **style)

    def frame(self, figure: Figure, panel: dict[str, Any]) -> None:
        """The panel's ground and title."""
        corner = (self.left / self.all_width, self.bottom / self.all_height)
        size = (self.width / self.all_width, self.height / self.all_height)
        style = {"boxstyle": "square,pad=0", "facecolor": PANEL, "edgecolor": EDGE, "linewidth": 0.8}
        figure.add_artist(FancyBboxPatch(corner, *size, transform=figure.transFigure, zorder=-1, **style))
        self.write(figure, 10, self.height - 20, panel["title"], size=9, weight="bold")


def _heading(figure: Figure, board: dict[str, Any], source: Source, width: int, height: int) -> None:
    head = _Box(GAP_PX, height - HEAD_PX, width - 2 * GAP_PX, HEAD_PX, width, height)
    head.write(figure, 8, 60, board["title"], size=15, weight="bold")
    chosen = "      ".join(
        f"{each['label']}: All" for each in board["templating"]["list"] if each["name"] != "datasource"
    )
    head.write(figure, 8, 30, chosen, color=FAINT, size=9)
    first, last = (datetime.fromtimestamp(at, UTC) for at in (source.start, source.end))
    head.write(figure, head.width - 8, 60, f"{first:%Y-%m-%d %H:%M:%S} to {last:%H:%M:%S} UTC", ha="right", size=10)
    foot = _Box(GAP_PX, 0, width - 2 * GAP_PX, FOOT_PX, width, height)
    caption = (
        "Rendered by matplotlib from the dashboards' queries, asked of a real Prometheus. Not a screenshot of Grafana."
    )
    foot.write(figure, 8, 16, caption, color=FAINT, size=9)


def _graph(figure: Figure, box: _Box, panel: dict[str, Any], source: Source) -> bool:
    box.frame(figure, panel)
    curves = sorted(source.curves(panel), key=_last, reverse=True)
    if not curves:
        return _say_empty(figure, box, panel)
    fitting = min(len(curves), max(2, int(box.height * 0.36 / 15)))
    legend = 15 * (fitting + 1 + (fitting < len(curves))) + 8
    unit = panel["fieldConfig"]["defaults"]["unit"]
    widest = max(len(shown(value, unit)) for _n, _t, values in curves for value in values if not math.isnan(value))
    axes = box.axes(figure, 30 + 6 * widest, legend + 24, 14, 34)
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    colours = _colours([name for name, _times, _values in curves])
    if custom.get("stacking", {}).get("mode") == "normal":
        heights = [[0.0 if math.isnan(value) else value for value in values] for _name, _times, values in curves]
        axes.stackplot(curves[0][1], heights, colors=[colours[name] for name, _t, _v in curves], alpha=0.6, linewidth=0)
    else:
        for name, times, values in curves:
            axes.plot(times, values, color=colours[name], linewidth=1.4)
            alone = [place for place in range(len(values)) if _stands_alone(values, place)]
            axes.plot([times[at] for at in alone], [values[at] for at in alone], ".", color=colours[name], markersize=3)
    axes.set_ylim(0, max(axes.get_ylim()[1], custom.get("axisSoftMax", 0), 1 if unit == "locale" else 1e-9))
    _dress(axes, panel, source, unit)
    _legend(figure, box, curves[:fitting], colours, unit, left_out=len(curves) - fitting)
    return True


def _stands_alone(values: list[float], place: int) -> bool:
    """Whether a value has gaps on both sides, so that no line would show it."""
    before, after = values[max(0, place - 1)], values[min(len(values) - 1, place + 1)]
    return not math.isnan(values[place]) and math.isnan(before) and math.isnan(after)


def _dress(axes: Axes, panel: dict[str, Any], source: Source, unit: str) -> None:
    """Axes as Grafana's: values from 0 up in their unit, times below, thresholds dashed within the scale."""
    axes.set_facecolor(PANEL)
    axes.set_xlim(source.start, source.end)
    axes.set_axisbelow(True)
    axes.grid(color=EDGE, linewidth=0.6)
    axes.tick_params(colors=FAINT, length=0, labelsize=8)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=unit == "locale"))
    axes.yaxis.set_major_formatter(lambda value, _place: shown(value, unit))
    ticks = [source.start + (source.end - source.start) * part / 5 for part in range(1, 5)]
    axes.set_xticks(ticks, [f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}" for at in ticks])
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is not None and step["value"] <= axes.get_ylim()[1]:
            axes.axhline(step["value"], color=NAMED[step["color"]], linewidth=1, linestyle="--")


def _legend(figure: Figure, box: _Box, curves: list[Curve], colours: dict[str, str], unit: str, left_out: int) -> None:
    column = 104 if unit.startswith(("suffix:", "reqps")) else 70
    ends = (box.width - 14, box.width - 14 - column, box.width - 14 - 2 * column)
    top = 15 * (len(curves) + (left_out > 0)) + 8
    box.write(figure, 14, top, "Name", color=FAINT, size=8)
    for end, heading in zip(ends, ("Max", "Mean", "Last *"), strict=True):
        box.write(figure, end, top, heading, color="#6e9fff", size=8, ha="right")
    for place, (name, _times, values) in enumerate(curves, 1):
        there = [value for value in values if not math.isnan(value)]
        box.write(figure, 14, top - 15 * place, "━", color=colours[name], size=9, weight="bold")
        box.write(figure, 32, top - 15 * place, name, size=8)
        for end, value in zip(ends, (max(there), sum(there) / len(there), there[-1]), strict=True):
            box.write(figure, end, top - 15 * place, shown(value, unit), size=8, ha="right")
    if left_out:
        box.write(figure, 32, 8, f"and {left_out} more, by scrolling in Grafana", color=FAINT, size=8)


def _last(curve: Curve) -> float:
    return next((value for value in reversed(curve[2]) if not math.isnan(value)), -math.inf)


def _colours(names: list[str]) -> dict[str, str]:
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(sorted(set(names)))}


def _figure(figure: Figure, box: _Box, panel: dict[str, Any], source: Source) -> bool:
    box.frame(figure, panel)
    defaults = panel["fieldConfig"]["defaults"]
    found = [(name_of(target, labels), value) for target in panel["targets"] for labels, value in source.now(target)]
    if not found:
        return _say_empty(figure, box, panel)
    for place, (name, value) in enumerate(found):
        across = box.width * (place + 0.5) / len(found)
        words = [each["options"] for each in defaults.get("mappings", [])]
        word = next((each["result"]["text"] for each in words if each["from"] <= value <= each["to"]), None)
        text = word or shown(value, defaults["unit"], defaults.get("decimals"))
        step = [each for each in defaults["thresholds"]["steps"] if each["value"] is None or value >= each["value"]][-1]
        colour = TEXT if panel["options"]["colorMode"] == "none" else NAMED[step["color"]]
        named = panel["options"]["textMode"] == "value_and_name"
        box.write(
            figure, across, box.height * 0.40, text, size=23, weight="bold", color=colour, ha="center", va="center"
        )
        if named:
            box.write(figure, across, 12, name, size=10, color=FAINT, ha="center")
    return True


def _table(figure: Figure, box: _Box, panel: dict[str, Any], source: Source) -> bool:
    box.frame(figure, panel)
    order = panel["transformations"][-1]["options"]
    units = {each["matcher"]["options"]: each["properties"][0]["value"] for each in panel["fieldConfig"]["overrides"]}
    merged: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for target in panel["targets"]:
        column = "Value" if len(panel["targets"]) == 1 else f"Value #{target['refId']}"
        for labels, value in source.now(target):
            merged.setdefault(tuple(sorted(labels.items())), dict(labels))[column] = value
    fields = sorted(order["indexByName"], key=order["indexByName"].get)
    headings = [order["renameByName"][field] for field in fields]
    if not merged:
        return _say_empty(figure, box, panel)
    rows = sorted(merged.values(), key=lambda row: _rank(row.get(fields[-1])), reverse=True)
    for place, row in enumerate([dict(zip(fields, headings, strict=True)), *rows[: int((box.height - 60) / 22)]]):
        for column, (field, heading) in enumerate(zip(fields, headings, strict=True)):
            value = row.get(field, "")
            text = value if isinstance(value, str) else shown(value, units.get(heading, "none"))
            right = heading in units
            x = (column + right) * (box.width - 24) / len(fields) + 12
            style = {"color": "#6e9fff", "weight": "bold"} if place == 0 else {}
            box.write(figure, x, box.height - 48 - 22 * place, text, size=8.5, ha="right" if right else "left", **style)
    return True


def _rank(value: Any) -> tuple[float, str]:
    return (0.0, value) if isinstance(value, str) else (-math.inf if value is None else value, "")


def _say_empty(figure: Figure, box: _Box, panel: dict[str, Any]) -> bool:
    text = panel["fieldConfig"]["defaults"].get("noValue", "No data")
    box.write(figure, box.width / 2, box.height * 0.42, text, color=FAINT, size=11, ha="center", va="center")
    return False


_DRAWN = {"timeseries": _graph, "stat": _figure, "table": _table}

if __name__ == "__main__":
    for title in render(*sys.argv[1:4]):
        print(f"no data: {title}")
