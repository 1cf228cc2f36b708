"""Every query of every panel, asked of a real Prometheus that scraped the real service under real traffic."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployment.metrics.board_rules import panels, variables_replaced
from tests.end_to_end.prometheus import prometheus
from tests.end_to_end.service import Service, new_ledger, once_booked, service
from tests.pictures.boards import render
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
BOARDS = {file.stem: json.loads(file.read_text()) for file in sorted((CONFIGS / "grafana" / "dashboards").iterdir())}
QUESTIONS = ("What is the colour of the harbour bell?", "Who keeps the mountain library?")
TERMS = {"currency": "EUR", "price_per_million_tokens": 100_000_000}  # a token is a euro, so that a few are seen
RATE_INTERVAL, STEP_S = "4s", 1.0  # four scrapes of a second each, as Grafana reckons

# Panels that show nothing where all is well, and why.
EMPTY = {
    "Alerts firing now": "no alert fires while the service is well",
    "Server's residual": "the bundle's rounds were not recorded",
    "Unsigned updates": "the bundle's rounds were not recorded",
    "Rounds now": "its columns of recorded rounds are empty, the others are not",
}


# Panels that show what the scene's traffic was, and the label that tells their series apart.
LABELS = {
    "Holds in force by scope": "scope",
    "Reversed receipts in all": "model",
    "Periods by state": "state",
    "Books balance": "model",
    "Alerts firing": "model",
    "Requests by outcome": "outcome",
    "Credit per client since the ledger began": "client",
    "Payouts per client, minor units": "client",
}


@dataclass
class Scene:
    """A service that was used, and the Prometheus that watched."""

    address: str
    start: float
    up: Service
    prometheus: httpx.Client

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of Prometheus that is a success without a warning."""
        answer = self.prometheus.get(path, params=parameters)
        body = answer.json()
        assert answer.is_success, (parameters, body)
        assert not body.get("warnings"), (parameters, body)
        assert not body.get("infos"), (parameters, body)
        return body["data"]

    def wait_for_scrapes(self) -> None:
        """Return when both jobs were scraped: what happens before that is no change to Prometheus."""
        until(lambda: len(self.ask("query", query="up == 1")["result"]) >= 2, what="a scrape of both jobs")

    def wait_for_credit(self) -> None:
        """Return when the open period has more than the reversal took from it: at zero, nobody's part can be told."""
        earned = "protoken_open_period_tokens > 0"
        until(lambda: self.ask("query", query=earned)["result"], what="credit beyond the reversal's")

    def has_data(self, target: dict[str, Any]) -> bool:
        """Whether a panel's query gives numbers over time, and at a moment: a graph's last one, a figure's now."""
        expr, now = variables_replaced(target["expr"], RATE_INTERVAL, "1s"), time.time()
        series = self.ask("query_range", query=expr, start=self.start, end=now, step=STEP_S)["result"]
        drawn = [at for each in series for at, _value in _finite(each)]
        moment = now if target["instant"] else max(drawn, default=now)
        told = self.ask("query", query=expr, time=moment)["result"]
        return bool(drawn) and any(_finite(each) for each in told)

    def panel_values(self, title: str, label: str) -> dict[str, float]:
        """What a panel's first query gives now, by a label's value."""
        (panel,) = (each for board in BOARDS.values() for each in panels(board) if each["title"] == title)
        series = self.ask("query", query=variables_replaced(panel["targets"][0]["expr"], "150s"))["result"]
        return {each["metric"].get(label, ""): float(each["value"][1]) for each in series}

    def without_data(self, board: str) -> dict[str, list[str]]:
        """Panels of which a query has no data after a while: replicas, checkpoints and previews come when they come."""
        left = [(panel["title"], target) for panel in panels(BOARDS[board]) for target in panel["targets"]]

        def is_filled() -> bool:
            left[:] = [(title, target) for title, target in left if not self.has_data(target)]
            return {title for title, _target in left} <= EMPTY.keys()

        until(is_filled, what=lambda: f"data of {[(title, target['expr']) for title, target in left]}")
        return {title: [target["expr"] for name, target in left if name == title] for title, _target in left}


@pytest.fixture(scope="module")
def scene(real_bundle, tmp_path_factory) -> Iterator[Scene]:
    """Traffic with a refusal, a reversal, a hold, a paid and a final period; it goes on while queries are asked."""
    folder = tmp_path_factory.mktemp("boards")
    (folder / "policy.yaml").write_text(json.dumps(TERMS))  # JSON is YAML
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROTOKEN_POLICY", str(folder / "policy.yaml"))
        with service(real_bundle, new_ledger(folder), folder / "serve.log") as up:
            targets = {"protoken-ledger": _target(up.metrics), "protoken-replicas": _target(up.replica_metrics)}
            with (
                prometheus(folder / "prometheus", targets=targets, rules=_rules(folder)) as address,
                _asked_all_the_time(up),
                httpx.Client(base_url=f"{address}/api/v1", timeout=PATIENCE_S) as client,
            ):
                made = Scene(address, time.time(), up, client)
                made.wait_for_scrapes()
                _settle(up)
                made.wait_for_credit()
                yield made


def _target(address: str) -> str:
    return address.removeprefix("http://").removesuffix("/metrics")


def _rules(folder: Path) -> list[Path]:
    """The rules, each group evaluated every second: those of long windows would come after the test."""
    copies = []
    for name in ("recording.yml", "alerts.yml"):
        text = (CONFIGS / "prometheus" / name).read_text()
        copies.append(folder / name)
        copies[-1].write_text(re.sub(r"^    interval: .*\n", "", text, flags=re.MULTILINE))
    return copies


@contextmanager
def _asked_all_the_time(up: Service) -> Iterator[None]:
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            for question in QUESTIONS:
                answer = _ask(up, question)
                if answer.status_code != 503:  # which says to come back
                    answer.raise_for_status()

    asking = threading.Thread(target=go_on)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()


def _ask(up: Service, question: str) -> httpx.Response:
    body = {"model": "real", "messages": [{"role": "user", "content": question}], "max_tokens": 8, "temperature": 0}
    headers = {"Authorization": f"Bearer {up.application}"}
    answer = httpx.post(f"{up.address}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_S)
    return once_booked(up, answer)


def _operator(up: Service) -> httpx.Client:
    headers = {"Authorization": f"Bearer {up.operator}"}
    return httpx.Client(base_url=f"{up.address}/api/v1", headers=headers, timeout=PATIENCE_S)


def _settle(up: Service) -> None:
    """What an operator does in two months, in a few seconds: a paid period, a final one, a reversal and a hold."""
    with _operator(up) as operator:
        for name in ("first", "second"):
            answered = _ask(up, QUESTIONS[0]).raise_for_status().json()
            operator.post(f"/periods/{name}/close", json={"policy": TERMS}).raise_for_status()
        operator.post("/periods/first/pay", json={"reference": "SEPA 1"}).raise_for_status()
        assert _ask(up, "word " * 9000).status_code == 400
        operator.post(f"/receipts/{answered['id']}/reversal", json={"reason": "a test question"}).raise_for_status()
        hold = {"kind": "client", "target": "ada", "reason": "its data are looked at"}
        operator.post("/holds", json=hold).raise_for_status()


def _finite(series: dict[str, Any]) -> list[tuple[float, float]]:
    """Moments and values of a series that can be drawn."""
    pairs = series["values"] if "values" in series else [series["value"]]
    return [(float(at), float(text)) for at, text in pairs if math.isfinite(float(text))]


@pytest.mark.parametrize("board", BOARDS)
def test_every_query_of_every_panel_has_data(scene, board):
    """Each query gives numbers over time and at a moment, without error or warning, but for the panels listed above."""
    empty = scene.without_data(board)

    assert {panel["title"] for panel in panels(BOARDS[board])} & EMPTY.keys() == empty.keys(), empty


def test_what_happened_is_what_the_panels_show(scene):
    """One hold, one reversed receipt, a paid and a final period, a refusal, and money for who taught the answers."""
    shown: dict[str, dict[str, float]] = {}

    def is_shown() -> bool:  # a replica and the ledger tell what they are asked of at moments of their own
        shown.update({title: scene.panel_values(title, label) for title, label in LABELS.items()})
        return (
            {"client": 1, "response": 0} == shown["Holds in force by scope"]
            and {"real": 1} == shown["Reversed receipts in all"]
            and {"draft": 0, "disputed": 0, "final": 1, "paid": 1} == shown["Periods by state"]
            and {"": 0} == shown["Books balance"] == shown["Alerts firing"]
            and {"finished", "refused"} <= shown["Requests by outcome"].keys()
            and shown["Requests by outcome"].get("finished", 0) > 0
            and shown["Credit per client since the ledger began"].get("ada", 0) > 0
            and shown["Credit per client since the ledger began"].get("rider") == 0
            and sum(shown["Payouts per client, minor units"].values()) > 0
        )

    until(is_shown, what=lambda: f"what happened on the panels, which show {shown}")


@pytest.mark.parametrize("board", BOARDS)
def test_a_closed_period_is_marked_on_every_graph(scene, board):
    """The annotation's query finds the moment at which the periods were closed."""
    (mark,) = (each for each in BOARDS[board]["annotations"]["list"] if each["name"] == "Periods closed")
    expr = variables_replaced(mark["expr"], RATE_INTERVAL, "1s")

    until(lambda: scene.ask("query_range", query=expr, start=scene.start, end=time.time(), step=STEP_S)["result"])


def test_the_published_round_is_shown(scene):
    """Both boards draw it, and say since when; the table of rounds has its number."""
    for board, title in [(board, "Round published") for board in BOARDS] + [("protoken-contribution", "Rounds now")]:
        (panel,) = (each for each in panels(BOARDS[board]) if each["title"] == title)
        expr = variables_replaced(panel["targets"][0]["expr"])
        (told,) = until(lambda expr=expr: scene.ask("query", query=expr)["result"])

        assert ("real", 2) == (told["metric"]["model"], float(told["value"][1]))


@pytest.mark.parametrize("board", BOARDS)
def test_every_variable_has_choices(scene, board):
    """Job, instance, client and model offer what the service is: both jobs, the consortium and its members."""
    offered = {}
    for variable in BOARDS[board]["templating"]["list"]:
        if variable["type"] == "query":
            match, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            offered[variable["name"]] = scene.ask(f"label/{label}/values", **{"match[]": variables_replaced(match)})

    assert ["protoken-ledger", "protoken-replicas"] == offered["job"]
    assert len(offered["instance"]) == 2
    assert ["real"] == offered["model"]
    assert {"ada", "bob"} <= set(offered.get("client", ["ada", "bob"]))


def test_every_rule_evaluates_without_error(scene):
    """Each recording and alert rule of configs/prometheus is evaluated, without an error, and no alert fires."""
    rules = [rule for group in scene.ask("rules")["groups"] for rule in group["rules"]]
    faults = {rule["name"]: rule.get("lastError", rule["health"]) for rule in rules if rule["health"] != "ok"}

    assert len(rules) > 40
    assert faults == {}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []


@pytest.mark.parametrize("board", BOARDS)
def test_a_picture_of_every_board_can_be_drawn(scene, board, tmp_path):
    """Each board becomes a picture from its own queries, in which only the panels listed above are empty."""
    scene.without_data(board)
    empty: list[str] = []

    def is_filled() -> bool:  # a preview is away for a moment where the period moved
        empty[:] = render(
            CONFIGS / "grafana" / "dashboards" / f"{board}.json", scene.address, tmp_path / f"{board}.png"
        )
        return set(empty) <= EMPTY.keys()

    until(is_filled, what=lambda: f"a picture in which only what may be is empty, and not {empty}")
    assert (tmp_path / f"{board}.png").read_bytes().startswith(b"\x89PNG")


def test_while_a_draft_stands_no_payout_is_previewed(scene):
    """A draft decides what the next period starts from: until it is final, panels of previews are empty and say so."""
    previews = [
        panel
        for panel in panels(BOARDS["protoken-contribution"])
        if any(re.search("protoken_(pool|payout)_preview", target["expr"]) for target in panel["targets"])
    ]
    with _operator(scene.up) as operator:
        operator.post("/periods/third/close", json={"policy": TERMS | {"dispute_days": 7}}).raise_for_status()

    expr = "(protoken_periods == 1) unless on () protoken_pool_preview_minor_units"  # both of one scrape

    def is_told() -> bool:
        return {"draft", "final", "paid"} == {
            each["metric"]["state"] for each in scene.ask("query", query=expr)["result"]
        }

    until(is_told)

    assert len(previews) == 5
    assert all("a draft stands" in p["fieldConfig"]["defaults"]["noValue"] for p in previews if p["type"] != "table")
