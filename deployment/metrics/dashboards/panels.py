"""What a panel looks like: graphs, single figures and tables in one style, readable with fifty clients.

Knows Grafana and no series.
"""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deployment.metrics.dashboards.colours import Steps, by_name, by_threshold, thresholds
from deployment.metrics.dashboards.queries import Query

AnyPanel = Builder[dashboard.Panel]
WHOLE: Final = "locale"
"""Grafana's unit of whole numbers whose digits all count, such as money: never rounded to thousands."""
_MARKS: Final = "ABCDEFGH"


def source() -> dashboard.DataSourceRef:
    """The Prometheus that the reader chose by the board's variable."""
    return dashboard.DataSourceRef(type_val="prometheus", uid="$datasource")


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    steps: Steps = (),
    up_to: float | None = None,
    empty: str = "nothing in this time range",
) -> timeseries.Panel:
    """Curves over time; the legend is a table whose largest last value stands on top, so that fifty curves can be read.

    Args:
        title: of the panel.
        description: what is seen, for whoever does not know the series.
        unit: Grafana's name of it.
        queries: one kind of curve each.
        stacked: as areas on each other, where their sum means something.
        steps: thresholds, drawn as dashed lines.
        up_to: how far the axis goes at least.
        empty: what stands there without data.
    """
    panel = timeseries.Panel().title(title).description(description).datasource(source()).unit(unit).no_value(empty)
    panel.min(0).line_width(1).fill_opacity(40 if stacked else 8).show_points(common.VisibilityMode.NEVER)
    panel.color_scheme(by_name())
    panel.legend(
        build_common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "mean", "max"])
        .sort_by("Last *")
        .sort_desc(True)
    )
    panel.tooltip(
        build_common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    if up_to is not None:
        panel.axis_soft_max(up_to)
    if unit == WHOLE:
        panel.decimals(0)
    if stacked:
        panel.stacking(build_common.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    panel.thresholds(thresholds(steps))
    if steps:
        style = common.GraphTresholdsStyleMode.DASHED
        panel.thresholds_style(build_common.GraphThresholdsStyleConfig().mode(style))
    for mark, query in zip(_MARKS, queries, strict=False):
        panel.with_target(_target(mark, query).range())
    return panel


def figure(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps = (),
    words: Sequence[tuple[float, float, str]] = (),
    decimals: int | None = None,
    names: bool = False,
    empty: str = "–",
) -> stat.Panel:
    """One number, or a few, as of now: asked for now only, since the last value of a range may be hours old.

    Args:
        title: of the panel.
        description: what is seen.
        unit: Grafana's name of it.
        queries: whose last values are shown.
        steps: thresholds that tint the number.
        words: lowest value, highest value and the word that is shown instead of a number between them.
        decimals: digits after the point.
        names: show the series' name too, where it is what is to be seen.
        empty: what stands there without data.
    """
    panel = stat.Panel().title(title).description(description).datasource(source()).unit(unit).no_value(empty)
    panel.thresholds(thresholds(steps))
    panel.color_scheme(by_threshold())
    panel.color_mode(common.BigValueColorMode.VALUE if steps else common.BigValueColorMode.NONE)
    panel.graph_mode(common.BigValueGraphMode.NONE)
    panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME if names else common.BigValueTextMode.AUTO)
    panel.reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    if decimals is not None:
        panel.decimals(decimals)
    if words:
        panel.mappings([_word(*each) for each in words])
    for mark, query in zip(_MARKS, queries, strict=False):
        panel.with_target(_target(mark, query).instant())
    return panel


def listing(
    title: str,
    description: str,
    *queries: Query,
    columns: Sequence[tuple[str, str, str]],
    empty: str = "nothing now",
) -> table.Panel:
    """A table of what is so now: a row for each set of labels, sorted by its last column.

    Args:
        title: of the panel.
        description: what is seen.
        queries: one column of values each; queries with the same labels share a row.
        columns: from left to right: label, or legend of a query; its heading; Grafana's unit, or "" for a label.
        empty: what stands there without data.
    """
    panel = table.Panel().title(title).description(description).datasource(source()).no_value(empty)
    panel.unit("none").show_header(True).cell_height(common.TableCellHeight.SM).thresholds(thresholds(()))
    fields = {query.legend: f"Value #{mark}" for mark, query in zip(_MARKS, queries, strict=False)}
    if len(queries) == 1:
        fields = {queries[0].legend: "Value"}  # Grafana numbers them only where there are several
    for mark, query in zip(_MARKS, queries, strict=False):
        panel.with_target(_target(mark, query).instant().format(PromQueryFormat.TABLE))
    names = [fields.get(column, column) for column, _heading, _unit in columns]
    headings = [heading for _column, heading, _unit in columns]
    hidden = [
        "Time",
        *(field for legend, field in fields.items() if legend not in dict.fromkeys(c[0] for c in columns)),
    ]
    panel.with_transformation(_transformation("merge", {}))
    panel.with_transformation(
        _transformation(
            "organize",
            {
                "excludeByName": dict.fromkeys(sorted(hidden), True),
                "indexByName": {name: place for place, name in enumerate(names)},
                "renameByName": dict(zip(names, headings, strict=True)),
            },
        )
    )
    for _column, heading, unit in columns:
        if unit:
            panel.override_by_name(heading, [dashboard.DynamicConfigValue(id_val="unit", value=unit)])
    panel.sort_by([build_common.TableSortByFieldState().display_name(headings[-1]).desc(True)])
    return panel


def _target(mark: str, query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(mark).expr(query.expr).legend_format(query.legend).datasource(source())


def _word(lowest: float, highest: float, word: str) -> dashboard.RangeMap:
    result = dashboard.ValueMappingResult(text=word)
    return dashboard.RangeMap(dashboard.DashboardRangeMapOptions(from_val=lowest, to=highest, result=result))


def _transformation(name: str, options: dict[str, object]) -> dashboard.DataTransformerConfig:
    return dashboard.DataTransformerConfig(id_val=name, options=options)
