"""What must hold of a board: the rules of Grafana's dashboard-linter, and a few of our own, each as a function.

A rule takes a board's document and yields what is wrong, beginning with the panel's or variable's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from deployment.metrics.catalogue import CATALOGUE

ROOT = Path(__file__).parents[3]
Board = dict[str, Any]
WINDOWED = r"(?:rate|irate|increase|delta|deriv|changes|resets)"
UNITS = {"none", "short", "locale", "s", "percentunit", "reqps"}
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_BY_EXPORTED = {each.exported_name: each for each in CATALOGUE.values()}


def variables_replaced(expr: str, rate_interval: str = "1m", interval: str = "15s") -> str:
    """A query as Grafana sends it when All is chosen everywhere."""
    replaced = expr.replace("$__rate_interval", rate_interval).replace("$__interval", interval)
    return re.sub(r"\$[a-z]+", ".+", replaced)


def panels(board: Board) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: Board) -> Iterator[tuple[str, str]]:
    """Every query, with the title of its panel, or the name of its annotation."""
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def selectors(expr: str) -> list[tuple[str, str, str]]:
    """Every series that a query asks for: name, matchers, and range with its brackets or ""."""
    plain = re.sub(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", "", expr)
    plain = re.sub(r'\("[^"]*", ', "(", plain)  # the label that `count_values` makes
    found = re.findall(r'\b([a-zA-Z_:][\w:]*)\b(\{(?:[^}"]|"[^"]*")*\})?(\[[^\]]*\])?(?!\s*\(|\w)', plain)
    return [each for each in found if each[0] not in _WORDS]


def recorded() -> set[str]:
    """The names of the recording rules."""
    files = (ROOT / "configs" / "prometheus").glob("*.y*ml")
    documents = [yaml.safe_load(file.read_text(encoding="utf-8")) or {} for file in files]
    groups = [group for document in documents if isinstance(document, dict) for group in document.get("groups", [])]
    return {rule["record"] for group in groups for rule in group.get("rules", []) if "record" in rule}


def template_datasource(board: Board) -> Iterator[str]:
    first = board["templating"]["list"][0]
    wanted = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    if wanted != {key: first.get(key) for key in wanted}:
        yield "datasource: the first variable does not choose the Prometheus"


def _template(board: Board, name: str) -> Iterator[str]:
    found = [each for each in board["templating"]["list"] if each["name"] == name]
    if len(found) != 1:
        yield f"{name}: there is no such variable"
        return
    wanted = {"type": "query", "multi": True, "includeAll": True, "allValue": ".+", "label": name.capitalize()}
    wanted["datasource"] = {"type": "prometheus", "uid": "$datasource"}
    for key, value in wanted.items():
        if found[0].get(key) != value:
            yield f"{name}: {key} is {found[0].get(key)!r} and not {value!r}"


def template_job(board: Board) -> Iterator[str]:
    yield from _template(board, "job")


def template_instance(board: Board) -> Iterator[str]:
    yield from _template(board, "instance")


def label_promql(board: Board) -> Iterator[str]:
    for variable in board["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        if not found or (not selectors(found[1]) and not found[1].startswith("{__name__=~")):
            yield f"{variable['name']}: not label_values(series, label)"
        elif (known := _BY_EXPORTED.get(found[1].split("{")[0])) and found[2] not in known.labels:
            yield f"{variable['name']}: {known.name} has no label {found[2]}"


def on_time_change_reload(board: Board) -> Iterator[str]:
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and variable.get("refresh") != 2:
            yield f"{variable['name']}: not asked again when the time range changes"


def panel_datasource(board: Board) -> Iterator[str]:
    wanted = {"type": "prometheus", "uid": "$datasource"}
    for panel in panels(board):
        for found in (panel.get("datasource"), *(target.get("datasource") for target in panel.get("targets", []))):
            if found != wanted:
                yield f"{panel['title']}: datasource {found}"


def title_description(board: Board) -> Iterator[str]:
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description", "").endswith("."):
            yield f"{panel.get('title')}: no title, or no description in sentences"


def panel_units(board: Board) -> Iterator[str]:
    for panel in panels(board):
        unit = panel["fieldConfig"]["defaults"].get("unit", "")
        if unit not in UNITS and not unit.startswith("suffix: "):
            yield f"{panel['title']}: unit {unit!r}"


def panel_no_targets(board: Board) -> Iterator[str]:
    for panel in panels(board):
        marks = [target["refId"] for target in panel.get("targets", [])]
        if not marks or len(marks) != len(set(marks)):
            yield f"{panel['title']}: no queries, or two of one mark"


def target_rate_interval(board: Board) -> Iterator[str]:
    for title, expr in queries(board):
        if any(window and window != "[$__rate_interval]" for _name, _matchers, window in selectors(expr)):
            yield f"{title}: a window that is not $__rate_interval"


def target_job(board: Board) -> Iterator[str]:
    yield from _matched(board, 'job=~"$job"')


def target_instance(board: Board) -> Iterator[str]:
    yield from _matched(board, 'instance=~"$instance"')


def _matched(board: Board, matcher: str) -> Iterator[str]:
    for title, expr in queries(board):
        if any(matcher not in matchers for _name, matchers, _window in selectors(expr)):
            yield f"{title}: a series without {matcher}"


def target_counter_agg(board: Board) -> Iterator[str]:
    for title, expr in queries(board):
        whole = len(re.findall(r"\w+(?:_total|_bucket)\{", expr))
        if whole != len(re.findall(WINDOWED + r"\(\w+(?:_total|_bucket)\{[^}]*\}\[", expr)):
            yield f"{title}: a counter as it stands"


def uneditable(board: Board) -> Iterator[str]:
    if board.get("editable") is not False:
        yield "board: editable"


def provisioned(board: Board) -> Iterator[str]:
    """Ours: a file that Grafana reads at start has no id and nothing that only the import page fills in."""
    if "id" not in board or board["id"] is not None or not board.get("uid"):
        yield "board: an id, or no uid"
    if "__inputs" in board or "DS_PROMETHEUS" in str(board):
        yield "board: an input that nobody fills in"
    numbers = [panel["id"] for panel in board["panels"]]
    if len(numbers) != len(set(numbers)):
        yield "board: two panels of one id"


def layout(board: Board) -> Iterator[str]:
    """Ours: panels lie within the grid, none on another, and no place is left free."""
    places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    for (one, a), (other, b) in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        if not (apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]):
            yield f"{one}: overlaps {other}"
    if any(place["x"] < 0 or place["x"] + place["w"] > 24 for _title, place in places):
        yield "board: wider than the grid"
    filled = sum(place["w"] * place["h"] for _title, place in places)
    if filled != 24 * max(place["y"] + place["h"] for _title, place in places):
        yield "board: a hole"


def known_series(board: Board) -> Iterator[str]:
    """Ours: every series is in the catalogue or recorded by a rule; a label by which it is chosen is one of it."""
    rules = recorded() | {"ALERTS"}
    for title, expr in queries(board):
        for name, matchers, _window in selectors(expr):
            each = _BY_EXPORTED.get(name.removesuffix("_bucket"))
            if name in rules:
                continue
            if each is None or name.endswith("_bucket") != (each.kind == "histogram"):
                yield f"{title}: no series {name}"
            elif strange := set(re.findall(r"(\w+)=", matchers)) - {"job", "instance", *each.labels}:
                yield f"{title}: {name} has no label {strange}"


def live_gauges(board: Board) -> Iterator[str]:
    """Ours: a replica's gauge stands beside a heartbeat of the last minute, as dead replicas' gauges stay for ever."""
    beat = r" and on \(job, instance, replica\) \(time\(\) - \w+_heartbeat_timestamp_seconds\{[^}]*\} < 60\)"
    for title, expr in queries(board):
        rest = re.sub(r"\w+\{[^}]*\}" + beat, "", expr)
        kinds = {
            _BY_EXPORTED[name].kind
            for name, _m, _w in selectors(rest)
            if name.startswith("ray_") and name in _BY_EXPORTED
        }
        if "gauge" in kinds:
            yield f"{title}: a replica's gauge without a heartbeat"


def legends(board: Board) -> Iterator[str]:
    """Ours: graphs have a legend that fifty clients do not burst: a table, the largest last value on top."""
    for panel in panels(board):
        if panel["type"] == "timeseries":
            legend = panel["options"]["legend"]
            kind, order, down = (legend.get(key) for key in ("displayMode", "sortBy", "sortDesc"))
            if (kind, order, down) != ("table", "Last *", True) or "lastNotNull" not in legend["calcs"]:
                yield f"{panel['title']}: legend {legend}"
            if any(not target.get("legendFormat") for target in panel["targets"]):
                yield f"{panel['title']}: a curve without a name"


def figures_of_now(board: Board) -> Iterator[str]:
    """Ours: figures and tables ask for now: the last value of a range would be shown as if it were one of now."""
    for panel in panels(board):
        if panel["type"] in {"stat", "table"} and not all(target.get("instant") for target in panel["targets"]):
            yield f"{panel['title']}: a range"


RULES: dict[str, Callable[[Board], Iterator[str]]] = {
    rule.__name__: rule
    for rule in (
        template_datasource, template_job, template_instance, label_promql, on_time_change_reload, panel_datasource,
        title_description, panel_units, panel_no_targets, target_rate_interval, target_job, target_instance,
        target_counter_agg, uneditable, provisioned, layout, known_series, live_gauges, legends, figures_of_now,
    )
}  # fmt: skip
