"""A board around its panels: variables, rows on Grafana's grid of 24 columns, and the JSON document.

The document is provisioned: it has no id, is not editable, and names no datasource but the reader's choice.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from deployment.metrics.catalogue import series
from deployment.metrics.dashboards.panels import AnyPanel, source
from deployment.metrics.dashboards.queries import once, select

_COLUMNS: Final = 24
_ALL: Final = ".+"
_ROUNDS: Final = "Rounds published"
_TAG: Final = "protoken"
_EXPORTER: Final = "protoken_build_info"
_REPLICA: Final = "protoken_replica_heartbeat_timestamp_seconds"
_WORDS: Final = {_ROUNDS: {"titleFormat": "Round {{round}} of {{model}}", "tagKeys": "model"}}
"""What Grafana writes beside a point, of labels of the query; its builders have no word for that."""


@dataclass(frozen=True)
class Band:
    """A row of a board: a heading, and under it lines of panels.

    Attributes:
        title: the heading.
        lines: each a height in grid units and its panels with their widths, which fill the grid's 24 columns.
    """

    title: str
    lines: Sequence[tuple[int, Sequence[tuple[AnyPanel, int]]]]


def board(uid: str, title: str, description: str, bands: Sequence[Band], choices: Sequence[tuple[str, str]]) -> str:
    """The JSON document of a board, with a line's end; the same for the same arguments.

    Args:
        uid: of the board, for ever; links and bookmarks hold on to it.
        title: of the board.
        description: one sentence.
        bands: its rows, from the top.
        choices: labels whose values the reader chooses, besides job and instance, each with a series that has it.

    Raises:
        ValueError: a line of panels is not as wide as the grid.
    """
    made = build.Dashboard(title).uid(uid).description(description).tags([_TAG]).readonly().timezone("browser")
    made.time("now-6h", "now").refresh("30s").tooltip(dashboard.DashboardCursorSync.CROSSHAIR).version(1)
    made.link(
        build.DashboardLink("ProToken boards").type(dashboard.DashboardLinkType.DASHBOARDS).tags([_TAG])
        .as_dropdown(False).include_vars(True).keep_time(True)
    )  # fmt: skip
    for variable in _variables(choices):
        made.with_variable(variable)
    made.annotation(
        build.AnnotationQuery().name("Periods closed").datasource(source()).icon_color("blue").enable(True)
        .expr(f"max(changes({select('protoken_open_period_start_timestamp_seconds')}[$__rate_interval])) > 0")
    )  # fmt: skip
    made.annotation(
        build.AnnotationQuery().name(_ROUNDS).datasource(source()).icon_color("purple").enable(True)
        .expr(_published_rounds())
    )  # fmt: skip
    _place(made, bands)
    document = json.loads(JSONEncoder().encode(made.build()))
    for annotation in document["annotations"]["list"]:
        annotation.update(_WORDS.get(annotation["name"], {}))
    return json.dumps({"id": None, **document}, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _published_rounds() -> str:
    """A point wherever another publication answers than before, by a rollback too; with the round as a label."""
    moved = f"changes({select('protoken_published_timestamp_seconds', 'model')}[$__rate_interval])"
    rounds = f'count_values by (model) ("round", {once("protoken_published_round", "model")})'
    return f"{rounds} and on (model) (max by (model) ({moved}) > 0)"


def _place(made: build.Dashboard, bands: Sequence[Band]) -> None:
    top, number = 0, 0
    for band in bands:
        number += 1
        made.with_row(build.Row(band.title).id(number).grid_pos(dashboard.GridPos(h=1, w=_COLUMNS, x=0, y=top)))
        top += 1
        for height, panels in band.lines:
            if (width := sum(each for _panel, each in panels)) != _COLUMNS:
                raise ValueError(f"a line of {band.title!r} is {width} columns wide, and the grid {_COLUMNS}")
            left = 0
            for panel, each in panels:
                number += 1
                made.with_panel(_PlacedPanel(panel, number, dashboard.GridPos(h=height, w=each, x=left, y=top)))
                left += each
            top += height


@dataclass(frozen=True)
class _PlacedPanel(Builder[dashboard.Panel]):
    """A panel with its number and place; the builders of panels share no type on which both could be set."""

    panel: AnyPanel
    number: int
    place: dashboard.GridPos

    def build(self) -> dashboard.Panel:
        made = self.panel.build()
        made.id_val, made.grid_pos = self.number, self.place
        return made


def _variables(choices: Sequence[tuple[str, str]]) -> list[build.DatasourceVariable | build.QueryVariable]:
    jobs = "|".join(series(name).exported_name for name in (_EXPORTER, _REPLICA))
    queries = {
        "job": f'label_values({{__name__=~"{jobs}"}}, job)',
        "instance": f'label_values({{__name__=~"{jobs}", job=~"$job"}}, instance)',
    }
    queries |= {label: f"label_values({select(name)}, {label})" for label, name in choices}
    chosen = build.DatasourceVariable("datasource").id("datasource").label("Data source").type("prometheus")
    return [chosen, *(_choice(label, query) for label, query in queries.items())]


def _choice(label: str, query: str) -> build.QueryVariable:
    every = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return (
        build.QueryVariable(label)
        .id(label)
        .label(label.capitalize())
        .datasource(source())
        .query({"query": query, "refId": f"choices of {label}"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(_ALL)
        .current(every)
    )
