"""The exporter against a real ledger, over HTTP, judged by promtool."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployment.errors import StartError
from deployment.metrics.exporter import serve_exporter
from rewards import Ledger, LedgerError
from tests.deployment.outages import away
from tests.rewards.receipts import MEMBERS, make_receipt


@pytest.fixture
def ledger(ledger: Ledger) -> Ledger:
    """The ledger, with the clients of the test receipts."""
    ledger.register("demo", MEMBERS)
    return ledger


@pytest.fixture
def port() -> int:
    """A port of loopback that is free for now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def metrics(url: str, port: int) -> Iterator[str]:
    """The address of a running exporter."""
    server = serve_exporter(url, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}/metrics"
    server.shutdown()
    server.server_close()


def samples(address: str) -> dict[tuple[str, ...], float]:
    """Every sample of a scrape by its name and the values of its labels, in the order of the labels' names."""
    families = text_string_to_metric_families(httpx.get(address).raise_for_status().text)
    return {
        (sample.name, *(value for _name, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_tokens_are_counted_by_client_and_commons(metrics: str, ledger: Ledger) -> None:
    """Attributed and commons tokens sum to the generated ones; a client that earned nothing shows its zero."""
    ledger.append(make_receipt("one", tokens=8))
    ledger.append(make_receipt("two", tokens=4))
    seen = samples(metrics)

    assert 12 == seen["protoken_generated_tokens_total", "demo"]
    assert 3 == seen["protoken_attributed_tokens_total", "bank", "demo"]
    assert 6 == seen["protoken_attributed_tokens_total", "clinic", "demo"]
    assert 0 == seen["protoken_attributed_tokens_total", "rider", "demo"]
    assert 3 == seen["protoken_commons_tokens_total", "demo"]
    assert 2 == seen["protoken_receipts_total", "demo"]
    assert not any("commons" in key[1:] for key in seen)


def test_durations_are_a_true_histogram(metrics: str, ledger: Ledger) -> None:
    """The sum and count of durations are those of the receipts, and the buckets hold them cumulatively."""
    for name in ("one", "two"):
        ledger.append(make_receipt(name))  # 1.5 s each
    seen = samples(metrics)

    assert (2, 3.0) == tuple(seen[f"protoken_request_duration_seconds_{part}", "demo"] for part in ("count", "sum"))
    assert (0, 2, 2) == tuple(
        seen["protoken_request_duration_seconds_bucket", bound, "demo"] for bound in ("1.0", "2.5", "+Inf")
    )


def test_each_scrape_goes_on_where_the_last_one_ended(metrics: str, ledger: Ledger) -> None:
    """Counters grow by what was booked in between, and stand still when nothing was; more than a page is no matter."""
    assert ("protoken_generated_tokens_total", "demo") not in samples(metrics)
    totals = []
    for batch in range(2):
        for n in range(1001 if batch == 0 else 1):
            ledger.append(make_receipt(f"{batch}-{n}", tokens=1))
        totals += [samples(metrics)["protoken_generated_tokens_total", "demo"] for _ in range(2)]

    assert [1001, 1001, 1002, 1002] == totals


def test_what_was_reversed_is_counted_beside_and_nothing_falls(metrics: str, ledger: Ledger) -> None:
    """A reversal takes nothing off what was booked: its tokens go to counters of their own, by client too."""
    ledger.append(make_receipt("one", tokens=8))
    ledger.append(make_receipt("two", tokens=4))
    before = samples(metrics)
    ledger.reverse("one", "a test", "command line")
    after = samples(metrics)

    assert {0.0} == {before["protoken_reversed_tokens_total", "demo"], before[
        "protoken_reversed_client_tokens_total", "clinic", "demo"]}  # fmt: skip
    assert 8 == after["protoken_reversed_tokens_total", "demo"]
    assert (2, 4, 0) == tuple(
        after["protoken_reversed_client_tokens_total", client, "demo"] for client in ("bank", "clinic", "rider")
    )
    booked = {name: value for name, value in before.items() if "reversed" not in name[0]}
    assert booked == {name: value for name, value in after.items() if "reversed" not in name[0]}
    assert 4 == ledger.tokens()


def test_scrape_fails_whole_while_the_database_is_away(metrics: str, ledger: Ledger) -> None:
    """A scrape without the ledger is an error and no series; the next one after it counts everything once."""
    ledger.append(make_receipt("one", tokens=8))
    assert 8 == samples(metrics)["protoken_generated_tokens_total", "demo"]
    ledger.append(make_receipt("two", tokens=4))
    with away(ledger.database, "receipts"):
        failed = httpx.get(metrics)

    assert (500, False) == (failed.status_code, "protoken_" in failed.text)
    assert 12 == samples(metrics)["protoken_generated_tokens_total", "demo"]


def test_a_second_exporter_counts_the_same(metrics: str, url: str, ledger: Ledger) -> None:
    """The counters are the ledger's: an exporter started later shows the same numbers."""
    ledger.append(make_receipt("one"))
    first = samples(metrics)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        other = probe.getsockname()[1]
    server = serve_exporter(url, "127.0.0.1", other)

    assert first == samples(f"http://127.0.0.1:{other}/metrics")
    server.shutdown()
    server.server_close()


def test_promtool_finds_nothing_to_say(metrics: str, ledger: Ledger) -> None:
    """`promtool check metrics` is clean, and the build is named."""
    if shutil.which("promtool") is None and not os.environ.get("CI"):
        pytest.skip("promtool (Debian package prometheus) is not installed")
    ledger.append(make_receipt("one"))
    text = httpx.get(metrics).text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)

    assert (0, "", "") == (checked.returncode, checked.stdout, checked.stderr)
    assert "protoken_build_info{" in text


def test_taken_port_and_missing_ledger_are_named(metrics: str, url: str, port: int, tmp_path: Path) -> None:
    """An exporter that cannot start says why."""
    with pytest.raises(StartError, match=str(port)):
        serve_exporter(url, "127.0.0.1", port)
    with pytest.raises(LedgerError, match=r"missing\.db"):
        serve_exporter(f"sqlite:///{tmp_path}/missing.db", "127.0.0.1", port)
