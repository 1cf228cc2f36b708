"""What Prometheus is told by the real service: every series of its replicas, and money that no mishap moves."""

import json
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployment.metrics.catalogue import of_source, series
from rewards import periods
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN, PENDING
from rewards.ledger.ledger import Ledger
from tests.end_to_end.prometheus import prometheus, query, query_range
from tests.end_to_end.service import Service, free_port, new_ledger, once_booked, replica_of, service
from tests.waiting import PATIENCE_S, is_up, until

pytestmark = pytest.mark.slow
GENERATED = series("protoken_replica_generated_tokens_total").exported_name
HEARTBEAT = series("protoken_replica_heartbeat_timestamp_seconds").exported_name
MONEY = [each.name for each in of_source("ledger") if each.kind == "counter"]


def ask(running: Service, prompt: str = "The harbour bell is", max_tokens: int = 6) -> httpx.Response:
    """A completion, in one piece, with its credit booked."""
    body = {"model": "real", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    headers = {"Authorization": f"Bearer {running.application}"}
    answer = httpx.post(f"{running.address}/v1/completions", json=body, headers=headers, timeout=PATIENCE_S)
    return once_booked(running, answer)


def stream(running: Service, pieces: int, began: threading.Event | None = None) -> str:
    """A long stream of which so many pieces are read, then its reader goes away: the response's id.

    `began` is set once a few pieces came.
    """
    read = 0
    body = {"model": "real", "prompt": "Count:", "max_tokens": 300, "temperature": 2.0, "seed": 1, "stream": True}
    headers = {"Authorization": f"Bearer {running.application}"}
    url, response_id = f"{running.address}/v1/completions", ""
    try:
        with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as answer:
            for line in answer.iter_lines():
                if line.startswith('data: {"id"'):
                    response_id = json.loads(line[6:])["id"]
                    read += 1
                if began is not None and read > 20:
                    began.set()
                if read == pieces:
                    break
    except httpx.TransportError:
        pass  # its replica was killed
    return response_id


def replica_samples(running: Service) -> list:
    """Every sample of our own series on Ray's port."""
    text = httpx.get(running.replica_metrics, timeout=PATIENCE_S).raise_for_status().text
    ours = "\n".join(line for line in text.splitlines() if "ray_protoken_" in line)
    return [sample for family in text_string_to_metric_families(ours + "\n") for sample in family.samples]


@pytest.fixture(scope="module")
def running(real_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    with service(real_bundle, new_ledger(folder), folder / "serve.log") as up:
        yield up


def test_every_replica_series_tells_what_the_traffic_was(running):
    """Three answers, a refusal and a reader who goes away: each series is exported and comes to just that."""
    for _ in range(3):
        ask(running).raise_for_status()
    assert 400 == ask(running, "word " * 9000).status_code
    response_id = stream(running, pieces=3)
    book = Ledger(running.ledger)
    until(lambda: book.is_booked(response_id))
    outcomes = {"finished": 3, "refused": 1, "cancelled": 1}

    def sums(name: str, label: str = "model") -> dict[str, float]:
        found: Counter[str] = Counter()
        for sample in replica_samples(running):
            if sample.name == f"ray_protoken_replica_{name}":
                found[sample.labels[label]] += sample.value
        return dict(found)

    until(lambda: sums("requests_total", "outcome") == outcomes)
    until(lambda: sums("attribution_seconds_count") == {"real": 4})
    samples = replica_samples(running)

    assert outcomes == sums("request_duration_seconds_count", "outcome")
    assert {"real": book.tokens()} == sums("generated_tokens_total")
    assert {"real": 4} == sums("time_to_first_token_seconds_count")
    assert {"real": book.tokens() - 4} == sums("inter_token_seconds_count")
    for name in ("spooled_receipts", "ledger_lag_seconds", "running_requests", "waiting_requests"):
        until(lambda name=name: sums(name) == {"real": 0})
    for each in of_source("replica"):
        names = {f"{each.exported_name}_bucket"} if each.buckets else {each.exported_name}
        told = [sample for sample in samples if sample.name in names]
        assert told, f"{each.exported_name} is not exported"
        assert all({*each.labels, "replica"} <= sample.labels.keys() for sample in told)
        bounds = {float(sample.labels["le"]) for sample in told if "le" in sample.labels}
        assert {*each.buckets} == bounds - {float("inf")}


def test_an_idle_replica_tells_its_heartbeat(running):
    """Without a request it is told again, so that a replica which is idle is not taken for a dead one."""

    def heartbeat() -> float:
        (found,) = [each.value for each in replica_samples(running) if "_heartbeat_" in each.name]
        return found

    first = heartbeat()
    until(lambda: heartbeat() > first)

    assert abs(time.time() - heartbeat()) < 60


def test_no_other_machine_can_scrape_the_replicas(running):
    """Ray's port is one of loopback alone."""
    port = httpx.URL(running.replica_metrics).port
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family.name == "AF_INET" and not address.address.startswith("127."):
                with pytest.raises(httpx.ConnectError):
                    httpx.get(f"http://{address.address}:{port}/metrics", timeout=5)


def test_no_money_counter_ever_falls_or_doubles(real_bundle, tmp_path):
    """Kill a replica, restart the service, reverse receipts, close a period: in Prometheus every counter only grows.

    And in the end each equals the sum over the ledger's own rows, to the last micro-credit and cent.
    """
    ledger, ports = new_ledger(tmp_path), (free_port(), free_port(), free_port())
    book = Ledger(ledger)
    targets = {"protoken-ledger": f"127.0.0.1:{ports[1]}", "protoken-replicas": f"127.0.0.1:{ports[2]}"}
    start = time.time()
    with prometheus(tmp_path / "prometheus", targets=targets) as address:
        with service(real_bundle, ledger, tmp_path / "serve.log", ports=ports) as running:
            first = ask(running).raise_for_status().json()["id"]
            until(lambda: len(query(address, GENERATED)) == 1)
            _kill_under_a_stream(running)
            ask(running).raise_for_status()
            # The dead one's counters go on being exported, its heartbeat does not: it is not taken for alive.
            until(lambda: len(query(address, GENERATED)) == 2)
            until(lambda: len(query(address, f"time() - {HEARTBEAT} < 60")) == 1)
        with service(real_bundle, ledger, tmp_path / "serve.log", ports=ports) as running:
            second = ask(running).raise_for_status().json()["id"]
            book.reverse(first, "a test", "command line")
            _close(running, "first")
            book.reverse(second, "a test", "command line")
            ask(running).raise_for_status()
            _close(running, "second")
            until(lambda: _told(address) == _sums(book))
            expected = _sums(book)
            curves = [each for name in MONEY for each in query_range(address, name, start, time.time())]

    assert {name for name, *_ in expected} == set(MONEY) - {"protoken_events_total"}
    assert {each["metric"]["__name__"] for each in curves} == set(MONEY)
    for each in curves:
        values = [float(value) for _at, value in each["values"]]
        assert sorted(values) == values, each["metric"]


def _kill_under_a_stream(running: Service) -> None:
    """SIGKILL the replica in the middle of a stream; returns when the next one answers and has booked it."""
    dying, began = replica_of(running).pid, threading.Event()
    with ThreadPoolExecutor() as pool:
        cut = pool.submit(stream, running, 10_000, began)
        assert began.wait(PATIENCE_S)
        os.kill(dying, signal.SIGKILL)
        response_id = cut.result(PATIENCE_S)
    until(lambda: is_up(f"{running.address}/health"))
    until(lambda: Ledger(running.ledger).is_booked(response_id))


def _close(running: Service, name: str) -> None:
    body = {"policy": {"currency": "EUR", "pool": 10_001}}
    headers = {"Authorization": f"Bearer {running.operator}"}
    httpx.post(
        f"{running.address}/api/v1/periods/{name}/close", json=body, headers=headers, timeout=PATIENCE_S
    ).raise_for_status()


def _told(address: str) -> dict[tuple[str, ...], float]:
    """Name and labels -> value of every money counter now, but for events, of which looking makes more."""
    found = {}
    for name in MONEY:
        for each in query(address, name):
            labels = (each["metric"].get(label, "") for label in ("client", "model", "currency"))
            found[name, *labels] = float(each["value"][1])
    return {key: value for key, value in found.items() if key[0] != "protoken_events_total"}


def _sums(ledger: Ledger) -> dict[tuple[str, ...], float]:
    """The same, added up one by one over the rows of the ledger."""
    micro: Counter[tuple[str, ...]] = Counter()
    for receipt in ledger.receipts_after(0, 10_000):
        is_reversal = receipt.kind == "reversal"
        tokens = abs(receipt.tokens) * MICRO_CREDITS_PER_TOKEN
        for name, amount in (
            ("reversed_tokens", tokens * is_reversal),
            ("reversals", MICRO_CREDITS_PER_TOKEN * is_reversal),
            ("generated_tokens", tokens * (not is_reversal)),
            ("receipts", MICRO_CREDITS_PER_TOKEN * (not is_reversal)),
        ):
            micro[f"protoken_{name}_total", "", "real", ""] += amount
        for client in ("ada", "bob", "rider"):
            amount = abs(receipt.amounts.get(client, 0))
            micro["protoken_attributed_tokens_total", client, "real", ""] += amount * (not is_reversal)
            micro["protoken_reversed_client_tokens_total", client, "real", ""] += amount * is_reversal
        micro["protoken_commons_tokens_total", "", "real", ""] += receipt.amounts[COMMONS] * (not is_reversal)
        micro["protoken_pending_tokens_total", "", "real", ""] += receipt.amounts.get(PENDING, 0) * (not is_reversal)
    for period in periods.all(ledger):
        for line in period.settlement.lines:
            if line.account != COMMONS:
                key = "protoken_final_payout_minor_units_total", line.account, "", "EUR"
                micro[key] += line.payout * MICRO_CREDITS_PER_TOKEN
    return {key: amount / MICRO_CREDITS_PER_TOKEN for key, amount in micro.items()}
