"""The boards are the code's, and a reader of Grafana finds no trap in them."""

import copy
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deployment.cli.commands import app
from deployment.metrics.catalogue import CATALOGUE
from deployment.metrics.dashboards.board_files import documents
from deployment.metrics.dashboards.queries import select
from deployment.settings import Settings
from tests.deployment.metrics.board_rules import RULES, panels, queries, selectors, variables_replaced
from tests.wanted import program

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "configs" / "grafana"
BOARDS = {name: json.loads(text) for name, text in documents().items()}

# What a rule forbids and these panels want, with the reason.
_TOTAL = "a counter of the ledger is a sum over its rows, which no restart sets back: in all is what is to be seen"
_RULES = "alerts are series of Prometheus itself, whose rules add over jobs and instances"
_DAY = "a forecast takes the last hour, however far the reader zooms"
WANTED = {
    ("target_counter_agg", "Credit per client since the ledger began"): _TOTAL,
    ("target_counter_agg", "Credit reversed per client"): _TOTAL,
    ("target_counter_agg", "Reversed receipts in all"): _TOTAL,
    ("target_counter_agg", "Clients now"): _TOTAL,
    ("target_counter_agg", "Payouts per client, minor units"): _TOTAL,
    ("target_counter_agg", "Books balance"): _TOTAL,
    ("target_job", "Alerts firing"): _RULES,
    ("target_job", "Alerts firing now"): _RULES,
    ("target_instance", "Alerts firing"): _RULES,
    ("target_instance", "Alerts firing now"): _RULES,
    ("target_rate_interval", "Credit in the next 24 hours, at the present rate"): _DAY,
    ("target_rate_interval", "Pool in 24 hours, at the present rate"): _DAY,
}


def test_the_committed_boards_are_those_of_the_code(tmp_path):
    """`protoken dashboards` writes exactly the files that are committed, and there are no others."""
    written = CliRunner().invoke(app, ["dashboards", "--out", str(tmp_path)])

    assert written.exit_code == 0, written.output
    assert {file.name: file.read_text() for file in (GRAFANA / "dashboards").iterdir()} == {
        file.name: file.read_text() for file in tmp_path.iterdir()
    }
    assert set(BOARDS) == {"protoken-contribution.json", "protoken-service.json"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """`protoken dashboards --out` over a file says which folder it is, and writes nothing."""
    (tmp_path / "file").write_text("here")

    failed = CliRunner().invoke(app, ["dashboards", "--out", str(tmp_path / "file")])

    assert failed.exit_code == 1
    assert f"{tmp_path / 'file'} is no folder" in str(failed.exception)


@pytest.mark.parametrize("rule", RULES)
def test_every_board_keeps_every_rule(rule):
    """Neither board breaks a rule, but for the panels that are listed with the reason why."""
    found = {fault.split(":")[0] for board in BOARDS.values() for fault in RULES[rule](board)}

    assert {panel for broken, panel in WANTED if broken == rule} == found


def _panel(board, **changes):
    panels(board)[0].update(changes)


def _expr(board, expr):
    graph = next(panel for panel in panels(board) if panel["type"] == "timeseries")
    graph["targets"][0]["expr"] = expr


def _variable(board, place, **changes):
    board["templating"]["list"][place].update(changes)


BAD = {
    "template_datasource": lambda board: _variable(board, 0, query="loki"),
    "template_job": lambda board: _variable(board, 1, allValue=""),
    "template_instance": lambda board: _variable(board, 2, multi=False),
    "label_promql": lambda board: _variable(board, 3, query={"query": "label_values(job"}),
    "on_time_change_reload": lambda board: _variable(board, 1, refresh=1),
    "panel_datasource": lambda board: _panel(board, datasource={"type": "prometheus", "uid": "${DS_PROMETHEUS}"}),
    "title_description": lambda board: _panel(board, description=""),
    "panel_units": lambda board: _panel(board, fieldConfig={"defaults": {"unit": "furlongs"}}),
    "panel_no_targets": lambda board: _panel(board, targets=[]),
    "target_rate_interval": lambda board: _expr(board, "rate(protoken_receipts_total[5m])"),
    "target_job": lambda board: _expr(board, 'protoken_log_leaves{instance=~"$instance"}'),
    "target_instance": lambda board: _expr(board, 'protoken_log_leaves{job=~"$job"}'),
    "target_counter_agg": lambda board: _expr(board, "sum(protoken_receipts_total{})"),
    "uneditable": lambda board: board.update(editable=True),
    "provisioned": lambda board: board.update(id=7),
    "layout": lambda board: _panel(board, gridPos={"x": 0, "y": 1, "w": 5, "h": 4}),
    "known_series": lambda board: _expr(
        board, "rate(ray_protoken_replica_inter_token_seconds_sum{}[$__rate_interval])"
    ),
    "live_gauges": lambda board: _expr(board, "sum(ray_protoken_replica_running_requests{})"),
    "legends": lambda board: next(p for p in panels(board) if p["type"] == "timeseries")["options"].update(
        legend={"displayMode": "list", "calcs": []}
    ),
    "figures_of_now": lambda board: panels(board)[0]["targets"][0].update(instant=False),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_known_bad_board_is_caught(rule):
    """Each rule notices a board that breaks it: no check has gone blind."""
    board = copy.deepcopy(BOARDS["protoken-contribution.json"])
    before = list(RULES[rule](board))

    BAD[rule](board)

    assert len(before) < len(list(RULES[rule](board)))


def _check_rules(folder, exprs):
    """What promtool says of a file of rules that holds every expression."""
    promtool = program("promtool", "prometheus")
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    return subprocess.run(
        [promtool, "check", "rules", folder / "rules.yaml"], capture_output=True, text=True, check=False
    )


def test_promtool_parses_every_query(tmp_path):
    """Every query, with Grafana's variables replaced, is PromQL; and promtool finds the one that is not."""
    exprs = [variables_replaced(expr) for board in BOARDS.values() for _title, expr in queries(board)]

    good = _check_rules(tmp_path, exprs)
    bad = _check_rules(tmp_path, [*exprs, "sum by (client) (rate(protoken_receipts_total))"])

    assert (0, f"{len(exprs)} rules found") == (good.returncode, re.search(r"\d+ rules found", good.stdout)[0]), good
    assert bad.returncode != 0
    assert "$" not in "".join(exprs)


def test_every_series_of_the_catalogue_is_on_a_board():
    """What is told is also shown: no series of the catalogue is without a panel."""
    asked = [each for board in BOARDS.values() for _title, expr in queries(board) for each in selectors(expr)]

    assert {each.exported_name for each in CATALOGUE.values()} <= {
        name.removesuffix("_bucket") for name, _m, _w in asked
    }


@pytest.mark.parametrize("board", BOARDS)
def test_rounds_are_annotations(board):
    """Both boards have a point wherever another round is published, which names the round and its model."""
    (annotation,) = (each for each in BOARDS[board]["annotations"]["list"] if each["name"] == "Rounds published")

    assert "Round {{round}} of {{model}}" == annotation["titleFormat"]
    assert {"protoken_published_round", "protoken_published_timestamp_seconds"} == {
        name for name, _matchers, _window in selectors(annotation["expr"])
    }


def test_a_series_or_label_that_is_not_there_is_refused():
    """A panel cannot name a series that the catalogue does not have, or choose by a label that it lacks."""
    with pytest.raises(KeyError, match="protoken_credit"):
        select("protoken_credit")
    with pytest.raises(KeyError, match="client"):
        select("protoken_receipts_total", "client")


def test_selectors_sees_every_series_of_a_query():
    """The reader of queries on which the rules rest finds names, matchers and ranges, and takes no word for a name."""
    expr = 'sum by (le, x) (rate(a_total{b=~"{}"}[5m])) / on (y) group_left () (c and d{e="f"}) or vector(0) > bool 1'

    assert [("a_total", '{b=~"{}"}', "[5m]"), ("c", "", ""), ("d", '{e="f"}', "")] == selectors(expr)


def test_grafana_is_provisioned_with_the_boards_and_the_prometheus():
    """The provisioning files give the data source a fixed uid and point at the folder of the boards."""
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/protoken.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/protoken.yaml").read_text())["providers"]
    scraped = yaml.safe_load((ROOT / "configs/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    grafana = _compose()["services"]["grafana"]
    mounts = [mount.split(":") for mount in grafana["volumes"]]

    assert ("protoken-prometheus", "prometheus", False) == (source["uid"], source["type"], source["editable"])
    assert scraped == source["jsonData"]["timeInterval"]
    assert provider["options"]["path"] == "$PROTOKEN_BOARDS"
    assert ["./grafana/dashboards", grafana["environment"]["PROTOKEN_BOARDS"], "ro"] in mounts
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rsplit("/", 1) == [
        grafana["environment"]["PROTOKEN_BOARDS"],
        "protoken-contribution.json",
    ]
    assert (False, True) == (provider["allowUiUpdates"], provider["disableDeletion"])


def _compose():
    return yaml.safe_load((ROOT / "configs" / "compose.yaml").read_text())


def test_compose_agrees_with_the_settings_and_mounts_what_is_there():
    """What is mounted or built from exists, ports are the settings', on loopback only, and images are pinned."""
    compose, settings = _compose(), Settings.model_fields
    services = compose["services"]
    mounts = [mount.split(":")[0] for service in services.values() for mount in service["volumes"]]
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/protoken.yaml").read_text())["datasources"]
    jobs = yaml.safe_load((ROOT / "configs/prometheus/prometheus.yml").read_text())["scrape_configs"]
    ports = {target.rsplit(":", 1)[1] for job in jobs for each in job["static_configs"] for target in each["targets"]}

    assert {"context": "..", "dockerfile": "Dockerfile"} == services["protoken"]["build"]
    assert {mount for mount in mounts if not mount.startswith("./")} == set(compose["volumes"])
    assert all((ROOT / "configs" / mount).is_dir() for mount in mounts if mount.startswith("./"))
    assert {f"127.0.0.1:{port}:{port}" for port in (settings["port"].default, 9090, 3000)} == set(
        services["protoken"]["ports"]
    )
    assert source["url"] == "http://127.0.0.1:9090"
    assert {str(settings[name].default) for name in ("metrics_port", "replica_metrics_port")} == ports
    assert all(re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", each["image"]) for each in services.values() if "image" in each)
    assert {name.removeprefix("PROTOKEN_").lower() for name in services["protoken"]["environment"]} <= set(settings)
