"""What is asked of the rules in configs/prometheus beyond promtool. Each check yields a sentence for each fault."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deployment.metrics.catalogue import CATALOGUE
from tests.deployment.metrics.board_rules import selectors
from tests.pages import anchors

__all__ = ["CHECKS", "FOLDER", "RUNBOOK", "Rules", "case_files", "shipped"]

Rule = Mapping[str, Any]
ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "configs" / "prometheus"
RUNBOOK = FOLDER / "RUNBOOK.md"
PROMETHEUS_S = {"job", "instance"}
RAY_S = {"replica", "deployment", "application", "WorkerId", "NodeAddress"}


class Rules:
    """The rules, the cases that test them, and the chapters of the runbook.

    Attributes:
        recording: recording rules in the order in which they stand.
        alerts: alerts.
        cases: every test of a file for promtool.
        anchors: of the runbook's headings.
        labels: series or recording rule -> the labels that it may have.
    """

    def __init__(self, recording: Sequence[Rule], alerts: Sequence[Rule], cases: Sequence[Rule], runbook: str) -> None:
        self.recording, self.alerts, self.cases = recording, alerts, cases
        self.anchors = anchors(runbook)
        self.labels = {"up": PROMETHEUS_S, "ALERTS": {"alertname", "alertstate"}}
        for each in CATALOGUE.values():
            labels = {*each.labels, *PROMETHEUS_S, *(RAY_S if each.source == "replica" else ())}
            self.labels[each.exported_name] = labels
            if each.kind == "histogram":
                del self.labels[each.exported_name]
                self.labels[f"{each.exported_name}_bucket"] = labels | {"le"}
        for rule in recording:
            self.labels[rule["record"]] = self.labels.get(rule["record"], set()) | self._kept(rule)

    def _kept(self, rule: Rule) -> set[str]:
        """Labels that a recording rule keeps of what it reads, or gives."""
        kept = re.findall(r"\bby \(([^)]+)\)", rule["expr"])
        named = {name for name, _matchers, _window in asked(rule["expr"])}
        read = [self.labels.get(name, set()) for name in named if ":" in name or not kept]
        return set(re.findall(r"\w+", " ".join(kept))).union(rule.get("labels", ()), *read) - {"le"}

    @property
    def both(self) -> list[Rule]:
        """Recording rules and alerts."""
        return [*self.recording, *self.alerts]


def asked(expr: str) -> list[tuple[str, str, str]]:
    """Every series that an expression asks for: name, matchers, and range; texts are no names."""
    return selectors(re.sub(r'"[^"]*"(?=\s*[,)])(?![^{]*\})', "", expr))


def shipped() -> Rules:
    """The rules of configs/prometheus with their tests, and the runbook."""
    recording, alerts = (
        [rule for group in _document(FOLDER / name)["groups"] for rule in group["rules"]]
        for name in ("recording.yml", "alerts.yml")
    )
    cases = [case for file in case_files(FOLDER) for case in _document(file)["tests"]]
    return Rules(recording, alerts, cases, RUNBOOK.read_text(encoding="utf-8"))


def case_files(folder: Path) -> list[Path]:
    """The files of tests for promtool."""
    return sorted((folder / "tests").glob("*.yml"))


def _document(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _name(rule: Rule) -> str:
    return str(rule.get("record") or rule["alert"])


def series_exist(rules: Rules) -> Iterator[str]:
    """A series is in the catalogue, as it is exported, or recorded; of a histogram only the buckets may be read."""
    for rule in rules.both:
        named = {name for name, _matchers, _window in asked(rule["expr"])}
        if not named:
            yield f"{_name(rule)}: asks for no series"
        for name in sorted(named - rules.labels.keys()):
            yield f"{_name(rule)}: there is no {name}"


def labels_exist(rules: Rules) -> Iterator[str]:
    """A label that is matched is one of its series; one that is kept or joined by is one of a series in the rule."""
    for rule in rules.both:
        found = asked(rule["expr"])
        for name, matchers, _window in found:
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
                if label not in rules.labels.get(name, ()):
                    yield f"{_name(rule)}: {name} has no label {label}"
        there = set().union(*(rules.labels.get(name, set()) for name, _matchers, _window in found))
        lists = re.findall(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)", rule["expr"])
        texts = re.findall(r"\$labels\.(\w+)", " ".join(rule.get("annotations", {}).values()))
        for label in sorted({each for found in lists for each in re.findall(r"\w+", found)} | set(texts)):
            if label not in there:
                yield f"{_name(rule)}: no series of it has a label {label}"


def records_are_named(rules: Rules) -> Iterator[str]:
    """A recording rule is called level:metric:operations, and its level names labels that it has."""
    for rule in rules.recording:
        parts = rule["record"].split(":")
        if len(parts) != 3 or not parts[1].startswith("protoken_"):
            yield f"{rule['record']}: is not level:metric:operations"
        elif not set(parts[0].split("_")) <= rules.labels[rule["record"]]:
            yield f"{rule['record']}: has not the labels of its level"


def alerts_are_whole(rules: Rules) -> Iterator[str]:
    """An alert says for how long, how urgent, what and how much, and where the runbook tells what to do."""
    names = [alert["alert"] for alert in rules.alerts]
    for alert in rules.alerts:
        name, told = alert["alert"], alert.get("annotations", {})
        if not name.startswith("Protoken") or names.count(name) != 1:
            yield f"{name}: is not one name that begins with Protoken"
        if not re.fullmatch(r"[1-9]\d*[smhd]", alert.get("for", "")):
            yield f"{name}: says not for how long"
        if alert.get("labels", {}).get("severity") not in {"page", "ticket"}:
            yield f"{name}: is neither page nor ticket"
        if set(told) != {"summary", "description", "runbook_url"}:
            yield f"{name}: has not the annotations summary, description and runbook_url"
            continue
        if "{{" in told["summary"] or not told["summary"].endswith("."):
            yield f"{name}: its summary is not one fixed sentence"
        if "$value" not in told["description"]:
            yield f"{name}: its description does not tell the value"
        page, _hash, anchor = told["runbook_url"].partition("#")
        if page != RUNBOOK.relative_to(ROOT).as_posix() or anchor != name.lower() or anchor not in rules.anchors:
            yield f"{name}: the runbook has no chapter at {told['runbook_url']}"


def chapters_have_alerts(rules: Rules) -> Iterator[str]:
    """The runbook has no chapter of an alert that is gone."""
    known = {alert["alert"].lower() for alert in rules.alerts}
    for anchor in sorted(rules.anchors):
        if anchor.startswith("protoken") and anchor not in known:
            yield f"{anchor}: there is no such alert"


def alerts_are_tested(rules: Rules) -> Iterator[str]:
    """Every alert has a case in which it fires and one in which it does not."""
    checks = [check for case in rules.cases for check in case.get("alert_rule_test", ())]
    fired = {check["alertname"] for check in checks if check["exp_alerts"]}
    silent = {check["alertname"] for check in checks if not check["exp_alerts"]}
    names = {alert["alert"] for alert in rules.alerts}
    for name in sorted(names - fired):
        yield f"{name}: no case in which it fires"
    for name in sorted(names - silent):
        yield f"{name}: no case in which it is silent"
    for name in sorted((fired | silent) - names):
        yield f"{name}: is tested, and there is no such alert"


def records_are_tested(rules: Rules) -> Iterator[str]:
    """Every recording rule has a value that a test expects, and each of several quantiles has one."""
    values = [
        sample["labels"]
        for case in rules.cases
        for check in case.get("promql_expr_test", ())
        for sample in check["exp_samples"] or ()
    ]
    for rule in rules.recording:
        wanted = [f'{key}="{value}"' for key, value in rule.get("labels", {}).items()]
        name = rule["record"] + "{"
        if not any(labels.startswith(name) and all(each in labels for each in wanted) for labels in values):
            yield f"{rule['record']}: no test expects a value"


CHECKS = (
    series_exist,
    labels_exist,
    records_are_named,
    alerts_are_whole,
    chapters_have_alerts,
    alerts_are_tested,
    records_are_tested,
)
