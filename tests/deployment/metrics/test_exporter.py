"""The exporter against a real ledger, over HTTP, judged by promtool."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployment.errors import StartError
from deployment.metrics import exporter as module
from deployment.metrics.catalogue import of_source
from deployment.metrics.ledger import LedgerCollector
from rewards.errors import LedgerError, PolicyError
from rewards.ledger.ledger import Ledger
from tests.deployment.metrics.scrapes import exporter, free_port, promtool_says, samples
from tests.deployment.outages import away
from tests.rewards.receipts import MEMBERS, make_receipt
from tests.rewards.sampled_credit.sampled import RULE, sampled
from tests.waiting import PATIENCE_S


@pytest.fixture
def ledger(ledger: Ledger) -> Ledger:
    """The ledger, with the clients of the test receipts."""
    ledger.register("demo", MEMBERS)
    return ledger


@pytest.fixture
def metrics(url: str, ledger: Ledger) -> Iterator[str]:
    """The address of a running exporter of it."""
    with exporter(url) as address:
        yield address


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


def test_what_was_not_measured_is_pending_and_no_client_s(metrics: str, ledger: Ledger) -> None:
    """Attributed, commons and pending tokens sum to the generated ones, and shares of the open period to 1."""
    for number in range(40):
        ledger.append(sampled(f"r{number}", RULE))
    seen = samples(metrics)
    shares = sum(value for key, value in seen.items() if key[0].endswith("share_ratio"))
    parts = ("attributed_tokens_total", "commons_tokens_total", "pending_tokens_total")
    tokens = sum(value for key, value in seen.items() if key[0].removeprefix("protoken_") in parts)

    assert 280 == seen["protoken_generated_tokens_total", "demo"] == tokens
    assert abs(shares - 1) < 1e-9
    assert seen["protoken_pending_share_ratio",] > 0.5
    assert seen["protoken_pending_share_ratio",] == seen["protoken_pending_tokens_total", "demo"] / 280
    assert not any({"pending", "other"} & set(key[1:]) for key in seen)


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
    """Counters grow by what was booked in between, and stand still when nothing was."""
    totals = [samples(metrics)["protoken_generated_tokens_total", "demo"]]
    for batch in range(2):
        ledger.append_many([make_receipt(f"{batch}-{n}", tokens=1) for n in range(1001 if batch == 0 else 1)])
        totals += [samples(metrics)["protoken_generated_tokens_total", "demo"] for _ in range(2)]

    assert [0, 1001, 1001, 1002, 1002] == totals


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
    counters = {each.name for each in of_source("ledger") if each.kind == "counter"}
    assert {"protoken_reversals_total", "protoken_reversed_tokens_total", "protoken_reversed_client_tokens_total"} == {
        name[0] for name, value in before.items() if name[0] in counters and value != after[name]
    }
    assert all(value <= after[name] for name, value in before.items() if name[0] in counters)
    assert 4 == ledger.tokens()


def test_scrape_fails_whole_while_the_database_is_away(metrics: str, ledger: Ledger) -> None:
    """A scrape without the ledger is an error and no series; the next one after it counts everything once."""
    ledger.append(make_receipt("one", tokens=8))
    assert 8 == samples(metrics)["protoken_generated_tokens_total", "demo"]
    ledger.append(make_receipt("two", tokens=4))
    with away(ledger.database, "receipts"):
        failed = httpx.get(metrics, timeout=PATIENCE_S)

    assert (503, False) == (failed.status_code, "protoken_" in failed.text)
    assert 12 == samples(metrics)["protoken_generated_tokens_total", "demo"]


def test_a_second_exporter_counts_the_same(metrics: str, url: str, ledger: Ledger) -> None:
    """The series are the ledger's: an exporter started later shows the same numbers, and nothing is doubled in one."""
    ledger.append(make_receipt("one"))
    first = samples(metrics)
    with exporter(url) as other:
        second = samples(other)

    assert first.keys() == second.keys()
    differing = {name for (name, *_), value in first.items() if value != second[name, *_]}
    assert {"protoken_exporter_reading_seconds"} >= differing


def test_promtool_finds_nothing_to_say(metrics: str, ledger: Ledger) -> None:
    """`promtool check metrics` is clean, and the build is named."""
    ledger.append(make_receipt("one"))
    text = httpx.get(metrics, timeout=PATIENCE_S).text

    assert (0, "", "") == promtool_says(text)
    assert "protoken_build_info{" in text


def test_a_scrape_during_the_first_reading_fails_and_does_not_block(
    url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until everything was read once the answer is 503 without a series; then a scrape has them all."""
    may_read, read = threading.Event(), LedgerCollector.read

    def slow(collector: LedgerCollector) -> object:
        assert may_read.wait(PATIENCE_S)
        return read(collector)

    monkeypatch.setattr(LedgerCollector, "read", slow)
    monkeypatch.setattr(module, "FIRST_READING_PATIENCE_S", 0.05)
    ledger.append(make_receipt("one", tokens=8))
    with exporter(url) as address:
        early = httpx.get(address, timeout=PATIENCE_S)
        may_read.set()
        monkeypatch.setattr(module, "FIRST_READING_PATIENCE_S", PATIENCE_S)
        later = samples(address)

    assert (503, "5", False) == (early.status_code, early.headers["retry-after"], "protoken_" in early.text)
    assert 8 == later["protoken_generated_tokens_total", "demo"]


def test_an_exporter_that_starts_during_an_outage_answers_when_that_is_over(
    url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reading is tried again until it succeeds; meanwhile every scrape fails."""
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    monkeypatch.setattr(module, "FIRST_READING_PATIENCE_S", 0.2)
    ledger.append(make_receipt("one", tokens=8))
    with away(ledger.database, "receipts"):
        running = exporter(url)
        address = running.__enter__()
        during = httpx.get(address, timeout=PATIENCE_S).status_code
    monkeypatch.setattr(module, "FIRST_READING_PATIENCE_S", PATIENCE_S)
    after = samples(address)
    running.__exit__(None, None, None)

    assert 503 == during
    assert 8 == after["protoken_generated_tokens_total", "demo"]


def test_a_first_reading_that_fails_as_nobody_foresaw_is_tried_again(
    url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No single failure ends the answering of scrapes for good."""
    read, failures = LedgerCollector.read, [ValueError("an event that nobody can read")]

    def failing_once(collector: LedgerCollector) -> object:
        if failures:
            raise failures.pop()
        return read(collector)

    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    monkeypatch.setattr(module, "FIRST_READING_PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(LedgerCollector, "read", failing_once)
    ledger.append(make_receipt("one", tokens=8))
    with exporter(url) as address:
        assert 8 == samples(address)["protoken_generated_tokens_total", "demo"]


def test_taken_port_missing_ledger_and_bad_policy_are_named(metrics: str, url: str, tmp_path: Path) -> None:
    """An exporter that cannot start says why."""
    port = httpx.URL(metrics).port
    (tmp_path / "policy.yaml").write_text("pool: much")
    with pytest.raises(StartError, match=str(port)), exporter(url, port=port):
        pass
    with pytest.raises(LedgerError, match=r"missing\.db"), exporter(f"sqlite:///{tmp_path}/missing.db"):
        pass
    with pytest.raises(PolicyError, match="pool"), exporter(url, tmp_path / "policy.yaml", free_port()):
        pass


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.3", "application/openmetrics-text"),
        ("application/openmetrics-text;version=1.0.0;q=0.3,text/plain;q=0.8", "text/plain"),
        ("application/openmetrics-text;q=0,*/*", "text/plain"),
    ],
)  # fmt: skip
def test_the_format_is_the_one_that_the_scraper_wants_most(metrics: str, accept: str, kind: str) -> None:
    """The weights in `Accept` are honoured."""
    answered = httpx.get(f"{metrics}/metrics", headers={"Accept": accept}, timeout=PATIENCE_S)

    assert kind == answered.headers["content-type"].partition(";")[0]
    assert answered.text.endswith("# EOF\n") == (kind == "application/openmetrics-text")
