"""Plots of the report, drawn from data as SVG; the same data gives the same bytes. Does not know any experiment."""

from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attribution.evaluation.results import Plot

# Okabe and Ito's palette, told apart with any colour vision
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LEGEND_INSIDE = 4
_LONG_LABEL = 8  # characters; longer names of categories are slanted
_SETTINGS: Any = {"svg.hashsalt": "protoken", "svg.fonttype": "none", "font.family": "sans-serif"}


def draw(plot: Plot, path: Path) -> None:
    """Write the plot to `path` as SVG, its texts as text."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        {"lines": _lines, "scatter": _scatter, "bars": _bars}[plot.kind](plot, axes)
        _dress(plot, axes, figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")


def _lines(plot: Plot, axes: Axes) -> None:
    for place, (name, points) in enumerate(plot.series.items()):
        x, y = [point[0] for point in points], [point[1] for point in points]
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        axes.plot(x, y, marker=marker, markersize=5, color=colour, label=name)


def _scatter(plot: Plot, axes: Axes) -> None:
    for place, (name, points) in enumerate(plot.series.items()):
        x, y = [point[0] for point in points], [point[1] for point in points]
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        axes.scatter(x, y, s=16, alpha=0.6, color=colour, marker=marker, linewidths=0, label=name)
    if plot.diagonal:
        ends = [0.0, max([1.0, *(value for points in plot.series.values() for point in points for value in point)])]
        axes.plot(ends, ends, color="#888888", linewidth=1, linestyle=":")


def _bars(plot: Plot, axes: Axes) -> None:
    width = 0.8 / max(len(plot.series), 1)
    for place, (name, points) in enumerate(plot.series.items()):
        shift = (place - (len(plot.series) - 1) / 2) * width
        heights = [point[1] for point in points]
        axes.bar(
            [point[0] + shift for point in points], heights, width, color=_COLOURS[place % len(_COLOURS)], label=name
        )


def _dress(plot: Plot, axes: Axes, figure: Figure) -> None:
    axes.set_title(plot.title, fontsize=11)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if plot.parts:
        axes.set_ylim(-0.03, 1.03)
    if all(x == int(x) for points in plot.series.values() for x, _ in points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if plot.log_y:
        axes.set_yscale("log")
    if plot.target is not None:
        axes.axhline(plot.target, color="#666666", linewidth=1, linestyle="--")
    if plot.categories:
        slanted = max(map(len, plot.categories)) > _LONG_LABEL
        axes.set_xticks(
            range(len(plot.categories)),
            plot.categories,
            rotation=30 if slanted else 0,
            ha="right" if slanted else "center",
        )
    if len(plot.series) > _LEGEND_INSIDE:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    elif len(plot.series) > 1:
        axes.legend(frameon=False, fontsize=8)
