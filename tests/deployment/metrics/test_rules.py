"""The rules and alerts of configs/prometheus: accepted by promtool, tested by it, and nothing in them is made up."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
import yaml

from deployment.cli.commands import app
from deployment.metrics.catalogue import CATALOGUE
from deployment.metrics.dashboards.board_files import documents
from deployment.settings import Settings
from tests.deployment.metrics import rule_rules
from tests.deployment.metrics.rule_rules import CHECKS, FOLDER, Rules, case_files, shipped
from tests.pages import faults_of_call
from tests.wanted import program

Check = Callable[[Rules], Iterator[str]]
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def promtool(*arguments: str | Path) -> tuple[int, str]:
    """Code and whole output of a promtool command; skips the test where there is none, but not in CI."""
    done = subprocess.run([program("promtool", "prometheus"), *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_promtool_accepts_the_configuration_and_its_rules():
    """The configuration is valid, and it loads every rule that stands in the two files."""
    rules = shipped()
    code, output = promtool("check", "config", "--lint=all", "--lint-fatal", FOLDER / "prometheus.yml")

    assert (0, True) == (code, "SUCCESS" in output), output
    assert [str(len(rules.recording)), str(len(rules.alerts))] == re.findall(r"(\d+) rules found", output)


@pytest.mark.parametrize("file", case_files(FOLDER), ids=lambda file: file.stem)
def test_rules_give_the_values_and_alerts_that_are_expected(file):
    """What promtool's tests of the rules expect is what the rules give."""
    code, output = promtool("test", "rules", file)

    assert (0, True) == (code, "SUCCESS" in output), output


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("< bool 60", "< bool 61"),
        ("max without (instance)", "sum without (instance)"),
        ("histogram_quantile(0.5,", "histogram_quantile(0.4,"),
    ],
)
def test_a_wrong_rule_is_seen(tmp_path, right, wrong):
    """The tests are about these rules: with one of them changed a little, they fail."""
    folder = tmp_path / "prometheus"
    shutil.copytree(FOLDER, folder)
    rules = folder / "recording.yml"
    text = rules.read_text(encoding="utf-8")
    rules.write_text(text.replace(right, wrong), encoding="utf-8")
    code, output = promtool("test", "rules", folder / "tests" / "recording.yml")

    assert right in text
    assert (1, True) == (code, "FAILED" in output), output


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_rule_keeps_every_check(check: Check):
    """No rule, alert, test or chapter of the runbook breaks what is asked of it."""
    rules = shipped()

    assert len(rules.recording) > 20
    assert len(rules.alerts) > 20
    assert len(rules.cases) > 20
    assert [] == list(check(rules))


PAGE = "configs/prometheus/RUNBOOK.md"
TOLD = {
    "summary": "It is bad.",
    "description": "{{ $labels.instance }} is {{ $value }}.",
    "runbook_url": f"{PAGE}#protokenbad",
}
ALERT = {
    "alert": "ProtokenBad",
    "expr": 'up{job="protoken-ledger"} == 0',
    "for": "5m",
    "labels": {"severity": "page"},
    "annotations": TOLD,
}
RECORD = {"record": "job:protoken_bad:sum", "expr": "sum by (job) (protoken_holds)"}
FIRES = {"alertname": "ProtokenBad", "exp_alerts": [{}]}
SILENT = {"alertname": "ProtokenBad", "exp_alerts": []}
VALUE = {"exp_samples": [{"labels": 'job:protoken_bad:sum{job="a"}'}]}
CHAPTER = "## ProtokenBad\n"


def faults(alert=ALERT, record=RECORD, cases=(FIRES, SILENT), values=(VALUE,), runbook=CHAPTER) -> list[str]:
    """What all checks say of one alert, one recording rule, their tests and a runbook."""
    rules = Rules([record], [alert], [{"alert_rule_test": cases, "promql_expr_test": values}], runbook)
    return [fault for check in CHECKS for fault in check(rules)]


def asks(expr: str) -> dict:
    """The good alert with another expression."""
    return {"alert": ALERT | {"expr": expr}}


def tells(**changed: str) -> dict:
    """The good alert with other annotations."""
    return {"alert": ALERT | {"annotations": TOLD | changed}}


KNOWN_BAD = {
    "there is no protoken_nonsense": asks("protoken_nonsense == 0 or up == 0"),
    "there is no protoken_replica_running_requests": asks("protoken_replica_running_requests or up"),
    "there is no ray_protoken_replica_inter_token_seconds_sum": asks(
        "ray_protoken_replica_inter_token_seconds_sum or up"
    ),
    "asks for no series": asks("vector(1)"),
    "up has no label client": asks('up{client="clinic"} == 0'),
    "no series of it has a label modell": asks("sum by (instance, modell) (up)"),
    "no series of it has a label replica": asks("up and on (replica) protoken_holds"),
    "no series of it has a label model": tells(description="{{ $labels.model }} {{ $value }}"),
    "its description does not tell the value": tells(description="It is bad."),
    "its summary is not one fixed sentence": tells(summary="{{ $value }} is bad."),
    f"the runbook has no chapter at {PAGE}#protokenworse": tells(runbook_url=f"{PAGE}#protokenworse"),
    f"the runbook has no chapter at {PAGE}#protokenbad": {"runbook": "# Runbook\n"},
    "the runbook has no chapter at README.md#protokenbad": tells(runbook_url="README.md#protokenbad"),
    "there is no such alert": {"runbook": CHAPTER + "## ProtokenWorse\n"},
    "says not for how long": {"alert": ALERT | {"for": ""}},
    "is neither page nor ticket": {"alert": ALERT | {"labels": {"severity": "critical"}}},
    "is not one name that begins with Protoken": {"alert": ALERT | {"alert": "Bad"}},
    "no case in which it fires": {"cases": [SILENT]},
    "no case in which it is silent": {"cases": [FIRES]},
    "is tested, and there is no such alert": {"cases": [FIRES, SILENT, FIRES | {"alertname": "ProtokenGone"}]},
    "no test expects a value": {"values": ()},
    "is not level:metric:operations": {"record": RECORD | {"record": "protoken_bad:sum"}},
    "has not the labels of its level": {"record": RECORD | {"record": "model:protoken_bad:sum"}},
}


@pytest.mark.parametrize(("expected", "bad"), KNOWN_BAD.items(), ids=KNOWN_BAD)
def test_a_known_bad_sample_is_caught(expected, bad):
    """Of rules that are sound but for one thing, that thing is told; of sound ones, nothing."""
    assert [] == faults()
    assert expected in {fault.split(": ", 1)[1] for fault in faults(**bad)}


def test_every_check_is_in_use():
    """No check was written and then forgotten."""
    written = {
        name for name, each in vars(rule_rules).items() if getattr(each, "__annotations__", {}).get("rules") is Rules
    }

    assert {check.__name__ for check in CHECKS} == written


def test_the_jobs_are_those_of_the_rules_and_the_service():
    """What is scraped, and under which names, is what rules ask for and where the service tells it by default."""
    document = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in document["scrape_configs"]}
    text = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
    ports = {name: Settings.model_fields[name].default for name in ("metrics_port", "replica_metrics_port")}

    assert set(jobs) == set(re.findall(r'job="([^"]+)"', text))
    assert jobs["protoken-ledger"] == [f"127.0.0.1:{ports['metrics_port']}"]
    assert jobs["protoken-replicas"] == [f"127.0.0.1:{ports['replica_metrics_port']}"]


def test_of_the_replicas_series_nothing_that_is_needed_is_dropped():
    """What is kept of Ray's port are the catalogue's series with every label that a rule or a board may ask for."""
    document = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    job = next(job for job in document["scrape_configs"] if job["job_name"] == "protoken-replicas")
    kept, dropped = job["metric_relabel_configs"]
    names = [
        each.exported_name + "_bucket" * (each.kind == "histogram")
        for each in CATALOGUE.values()
        if each.source == "replica"
    ]
    needed = {"model", "outcome", "le"} | rule_rules.RAY_S

    assert len(names) > 5
    assert all(re.fullmatch(kept["regex"], name) for name in names)
    assert re.fullmatch(kept["regex"], "ray_serve_num_router_requests_total") is None
    assert not [label for label in needed if re.fullmatch(dropped["regex"], label)]


def test_looking_back_needs_no_longer_memory_than_is_told():
    """Every range and offset of a rule fits into the retention that the configuration's head tells."""
    spans = [span for rule in shipped().both for span in re.findall(r"(?:\[|offset )((?:\d+[smhdw])+)", rule["expr"])]
    needed_s = [sum(int(n) * SECONDS[unit] for n, unit in re.findall(r"(\d+)([smhdw])", span)) for span in spans]
    head = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    kept_s = 86_400 * int(re.search(r"retention\.time=(\d+)d", head)[1])

    assert 30 * 86_400 < max(needed_s) < kept_s


def test_the_runbook_names_commands_and_panels_that_exist():
    """Each `protoken …` of the runbook is a command with such options, and each panel is on a board."""
    runbook = " ".join(rule_rules.RUNBOOK.read_text(encoding="utf-8").split())
    boards = "".join(documents().values())
    commands = re.findall(r"`protoken ([^`]+)`", runbook)
    panels = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", runbook)

    assert len(commands) > 10
    assert len(panels) > 10
    assert [] == [panel for panel in panels if f'"{panel}"' not in boards and f": {panel.lower()}" not in boards]
    assert [] == [
        f"{words}: {fault}"
        for words in commands
        for fault in faults_of_call(typer.main.get_command(app), shlex.split(words), whole=False)
    ]


def test_the_runbook_is_as_urgent_as_the_alert():
    """Each chapter begins with what its alert is, a page or a ticket."""
    runbook = rule_rules.RUNBOOK.read_text(encoding="utf-8")
    told = {name: urge.lower() for name, urge in re.findall(r"^## (\w+)\n(Page|Ticket)\. ", runbook, re.MULTILINE)}
    groups = yaml.safe_load((rule_rules.ROOT / "configs/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]

    assert len(told) > 20
    assert {alert["alert"]: alert["labels"]["severity"] for each in groups for alert in each["rules"]} == told
