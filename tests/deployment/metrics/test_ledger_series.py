"""Every series of the catalogue that the ledger feeds: all of them, no other, and with the ledger's own figures."""

import json
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployment.metrics.catalogue import CATALOGUE, MOST_CLIENTS, OTHER, of_source
from deployment.metrics.values import ClientLabels, Families
from rewards import periods
from rewards.credit import COMMONS
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.periods import holds
from rewards.settlement.policy import Policy
from rewards.store import publications
from tests.deployment.metrics.scrapes import exemplars, exporter, promtool_says, samples
from tests.deployment.recorded_bundles import manifest_document, publish_document
from tests.rewards.books import KEY, ORIGIN
from tests.rewards.conftest import new_database
from tests.rewards.receipts import MEMBERS, make_receipt
from tests.waiting import PATIENCE_S, until

POLICY = Policy(pool=1001, currency="EUR")
DISPUTABLE = Policy(pool=1001, currency="EUR", dispute_days=3)
PREVIEWS = {
    "protoken_pool_preview_minor_units",
    "protoken_payout_preview_minor_units",
    "protoken_settlement_duration_seconds",
}


@pytest.fixture
def ledger(ledger: Ledger) -> Ledger:
    """The ledger, with the clients of the test receipts."""
    ledger.register("demo", MEMBERS)
    return ledger


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy's file, and previews that are renewed often."""
    monkeypatch.setattr("deployment.metrics.exporter.PREVIEW_EVERY_S", 0.05)
    path = tmp_path / "policy.yaml"
    path.write_text("pool: 1001\ncurrency: EUR\n")
    return path


def is_previewed(address: str) -> bool:
    """Whether a scrape tells what the open period would pay."""
    return ("protoken_pool_preview_minor_units", "EUR") in samples(address)


def with_name(found: dict[tuple[str, ...], float], name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name by the values of their labels."""
    return {labels: value for (each, *labels_), value in found.items() if each == name for labels in [tuple(labels_)]}


def test_what_is_exported_is_the_catalogue(url: str, ledger: Ledger, policy: Path, tmp_path: Path) -> None:
    """Each ledger series has the catalogue's name, kind, help and labels; none is missing, and there is no other."""
    publish_document(ledger, tmp_path / "bundle", manifest_document("demo", [*MEMBERS], 2))
    ledger.append(make_receipt("one"))
    periods.close(ledger, "first", POLICY, "me")
    ledger.append(make_receipt("two"))
    with exporter(url, policy) as address:
        until(lambda: is_previewed(address))
        text = httpx.get(address, timeout=PATIENCE_S).text
    exported = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {tuple(sorted(sample.labels.keys() - {"le"})) for sample in family.samples}
        exported[name] = (family.type, family.documentation, labels)

    described = {
        each.name: ("gauge" if each.kind == "info" else each.kind, each.help, {tuple(sorted(each.labels))})
        for each in of_source("ledger")
    }
    assert described == exported
    assert (0, "", "") == promtool_says(text)


def test_without_a_policy_nothing_is_previewed(url: str, ledger: Ledger, tmp_path: Path) -> None:
    """The series that need a policy are absent, and all others are there."""
    publish_document(ledger, tmp_path / "bundle", manifest_document("demo", [*MEMBERS], 2))
    ledger.append(make_receipt("one"))
    periods.close(ledger, "first", POLICY, "me")
    with exporter(url) as address:
        found = {name for name, *_ in samples(address)}

    missing = {each.name for each in of_source("ledger") if each.kind != "histogram"} - found
    assert PREVIEWS == missing


def test_the_published_round_is_told(url: str, ledger: Ledger, tmp_path: Path) -> None:
    """Its number, since when, its residual, and what is unsigned; after a rollback those of the round before, anew."""
    first, second = (manifest_document("demo", [*MEMBERS][:number], number) for number in (2, 3))
    second["rounds"][-1]["residual_norm"] = 0.0
    seen = []
    with exporter(url) as address:
        seen.append(samples(address))
        publish_document(ledger, tmp_path / "first", first)
        seen.append(samples(address))
        publish_document(ledger, tmp_path / "second", second)
        seen.append(samples(address))
        with ledger.database.write() as connection:
            publications.withdraw(connection, "demo", "me")
        seen.append(samples(address))
    with ledger.database.read() as connection:
        told = publications.history(connection, "demo")

    moments = [told[0].at_us, told[1].at_us, told[1].withdrawn_at_us]
    expected = {
        "protoken_published_round": [2, 3, 2],
        "protoken_published_residual_ratio": [0.25, 0.0, 0.25],
        "protoken_published_unsigned_updates": [2, 6, 2],
        "protoken_published_timestamp_seconds": [at_us / 1e6 for at_us in moments if at_us],
    }
    for name, values in expected.items():
        assert [None, *values] == [found.get((name, "demo")) for found in seen]


def test_a_bundle_that_cannot_be_read_leaves_its_figures_out(url: str, ledger: Ledger, tmp_path: Path) -> None:
    """Gone, another one, or without rounds: which round is published is told all the same; once it is back, all is."""
    document = manifest_document("demo", [*MEMBERS], 1)
    file = publish_document(ledger, tmp_path / "bundle", document) / "consortium.json"
    content, seen = file.read_bytes(), []
    with exporter(url) as address:
        for text in (None, b"{}", json.dumps(document | {"defences": None}).encode(), content):
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_bytes(text)
            seen.append(samples(address))
        plain = {key: value for key, value in document.items() if key not in ("rounds", "start_norm")}
        other = {**document["global"], "sha256": "ab" * 32}
        folder = tmp_path / "plain"
        publish_document(ledger, folder, plain | {"aggregation": "fedavg-exact", "global": other})
        seen.append(samples(address))

    names = ("protoken_published_residual_ratio", "protoken_published_unsigned_updates")
    assert [1.0] * 5 == [found["protoken_published_round", "demo"] for found in seen]
    assert [False, False, False, True, False] == [any((name, "demo") in found for name in names) for found in seen]


def test_shares_are_those_of_the_open_period(url: str, ledger: Ledger) -> None:
    """They sum to 1 with the commons', are 0 after each close, and no reversal of an earlier period moves them."""
    with exporter(url) as address:
        empty = samples(address)
        ledger.append(make_receipt("one", tokens=8))
        first = samples(address)
        periods.close(ledger, "first", POLICY, "me")
        closed = samples(address)
        ledger.reverse("one", "a test", "me")
        ledger.append(make_receipt("two", tokens=4, shares={"bank": 1.0}))
        second = samples(address)

    shares = [with_name(found, "protoken_share_ratio") for found in (empty, first, closed, second)]
    commons = [found["protoken_commons_share_ratio",] for found in (empty, first, closed, second)]
    assert {("bank",): 0.25, ("clinic",): 0.5, ("rider",): 0.0} == shares[1]
    assert [0, 0, 0] == [*shares[0].values()] == [*shares[2].values()]
    assert {("bank",): 1.0, ("clinic",): 0.0, ("rider",): 0.0} == shares[3]
    assert [0, 0.25, 0, 0] == commons
    assert [0, 8, 0, 4] == [found["protoken_open_period_tokens",] for found in (empty, first, closed, second)]
    closed_at = periods.all(ledger)[0].closed_at_us / 1e6
    started = [found["protoken_open_period_start_timestamp_seconds",] for found in (empty, first, closed, second)]
    assert [0, 0, closed_at, closed_at] == started


def test_the_preview_is_what_a_close_stores(url: str, ledger: Ledger, policy: Path) -> None:
    """Pool and payouts are those of a close at this moment; after it there is none until something is booked."""
    ledger.append(make_receipt("one"))
    with exporter(url, policy) as address:
        until(lambda: is_previewed(address))
        previewed = samples(address)
        settlement = periods.close(ledger, "first", POLICY, "me")
        after = samples(address)
        ledger.append(make_receipt("two"))
        until(lambda: is_previewed(address))

    payouts = {(line.account, "EUR"): line.payout for line in settlement.lines if line.account != COMMONS}
    assert {("EUR",): 1001} == with_name(previewed, "protoken_pool_preview_minor_units")
    assert payouts == with_name(previewed, "protoken_payout_preview_minor_units")
    assert PREVIEWS.isdisjoint(name for name, *_ in after), "the preview of a period that is closed by now"
    assert {(client, "EUR"): 0 for client in MEMBERS} == with_name(
        previewed, "protoken_final_payout_minor_units_total"
    ), "a counter begins at 0, so that its first step shows"
    assert payouts == with_name(after, "protoken_final_payout_minor_units_total")


def test_a_policy_that_breaks_later_takes_the_preview_away(url: str, ledger: Ledger, policy: Path) -> None:
    """The rest of the series goes on; once the file is right again, so is the preview."""
    ledger.append(make_receipt("one"))
    good = policy.read_text()
    with exporter(url, policy) as address:
        until(lambda: is_previewed(address))
        for bad in ("pool: much", "[" * 5000):  # the second one fails in a way that nobody foresaw
            policy.write_text(bad)
            until(lambda: not is_previewed(address))
            assert 7 == samples(address)["protoken_generated_tokens_total", "demo"]
            policy.write_text(good)
            until(lambda: is_previewed(address))


def test_only_final_periods_are_awarded(url: str, ledger: Ledger) -> None:
    """A draft awards nothing; final and paid periods add up, and what is paid is not counted again."""
    seen = []
    with exporter(url) as address:
        ledger.append(make_receipt("one"))
        periods.close(ledger, "first", POLICY, "me")
        seen.append(samples(address))
        periods.pay(ledger, "first", "transfer 1", "me")
        ledger.append(make_receipt("two", shares={"bank": 1.0}))
        second = periods.close(ledger, "second", DISPUTABLE, "me")
        seen.append(samples(address))
        holds.place(ledger, "client", "bank", "a question", "me")
        seen.append(samples(address))

    awarded = [with_name(found, "protoken_final_payout_minor_units_total") for found in seen]
    assert {("bank", "EUR"): 250, ("clinic", "EUR"): 501, ("rider", "EUR"): 0} == awarded[0]
    assert awarded[0] == awarded[1] == awarded[2]
    assert 1001 == sum(line.payout for line in second.lines)
    states = [
        {state for (state,), count in with_name(found, "protoken_periods").items() for _ in range(int(count))}
        for found in seen
    ]
    assert [{"final"}, {"paid", "draft"}, {"paid", "disputed"}] == states
    assert {("client",): 1, ("response",): 0} == with_name(seen[2], "protoken_holds")
    assert {("client",): 0, ("response",): 0} == with_name(seen[1], "protoken_holds")


def test_the_log_and_the_events_are_told(url: str, ledger: Ledger) -> None:
    """How many rows wait for a checkpoint, since when; how many are under the last one; and events by kind."""
    with exporter(url) as address:
        ledger.append(make_receipt("one"))
        before = samples(address)
        seal(ledger, KEY, ORIGIN)
        seal(ledger, KEY, ORIGIN)  # the first one wrote an event, that of its key
        sealed = samples(address)
        ledger.append(make_receipt("two"))
        after = samples(address)

    clients = 2 + len(MEMBERS)  # of the fixtures' two consortia
    booked_at = [row.booked_at_us / 1e6 for row in ledger.receipts_after(0)]
    assert [clients + 1, 0, 1] == [found["protoken_log_unsealed_rows",] for found in (before, sealed, after)]
    assert [0, clients + 2, clients + 2] == [found["protoken_log_leaves",] for found in (before, sealed, after)]
    oldest = "protoken_log_oldest_unsealed_timestamp_seconds"
    assert 0 < before[oldest,] < booked_at[0], "the first client was registered before"
    assert [0, booked_at[1]] == [found[oldest,] for found in (sealed, after)]
    assert 0 == before["protoken_checkpoint_timestamp_seconds",] < sealed["protoken_checkpoint_timestamp_seconds",]
    assert booked_at == [found["protoken_ledger_last_booking_timestamp_seconds",] for found in (before, after)]
    assert {("client.registered",): clients, ("signing_key.added",): 1} == with_name(after, "protoken_events_total")


def test_durations_carry_exemplars_in_openmetrics(url: str, ledger: Ledger) -> None:
    """Each bucket names the last response that fell into it; the plain text has none, and promtool accepts it."""
    with exporter(url) as address:
        for name, seconds in (("quick", 0.1), ("quicker", 0.05), ("slow", 1000), ("i" * 100, 3)):
            ledger.append(replace(make_receipt(name), duration_us=round(seconds * 1e6)))
        first = exemplars(address)
        ledger.append(replace(make_receipt("slower"), duration_us=2_000_000_000))
        second = exemplars(address)
        text = httpx.get(address, timeout=PATIENCE_S).text

    assert {"0.1": "quicker", "+Inf": "slow"} == {le: each.labels["response_id"] for le, each in first.items()}
    assert {"0.1": "quicker", "+Inf": "slower"} == {le: each.labels["response_id"] for le, each in second.items()}
    assert (0.05, 2000.0) == (second["0.1"].value, second["+Inf"].value)
    assert ("quick" in text, promtool_says(text)) == (False, (0, "", ""))


def test_labels_are_bounded_by_the_order_of_registration(url: str, ledger: Ledger) -> None:
    """The first hundred clients have a label each, whoever comes later shares one, and nobody's changes by that."""
    crowd = {f"client{number:03}": "somebody" for number in range(MOST_CLIENTS + 5)}
    with exporter(url) as address:
        ledger.append(make_receipt("one", tokens=4))
        before = with_name(samples(address), "protoken_attributed_tokens_total")
        ledger.register("crowd", crowd)
        ledger.register("demo", {"late": "A late one"})
        for name in ("client000", "client103", "client104"):
            receipt = make_receipt(f"by {name}", tokens=4, shares={name: 1.0})
            ledger.append(replace(receipt, consortium="crowd"))
        ledger.append(make_receipt("late", tokens=2, shares={"late": 1.0}))
        found = samples(address)

    tokens = with_name(found, "protoken_attributed_tokens_total")
    assert {labels: tokens[labels] for labels in before} == before
    assert (4, 8, 2) == (tokens["client000", "crowd"], tokens[OTHER, "crowd"], tokens[OTHER, "demo"])
    assert MOST_CLIENTS + 1 == len(with_name(found, "protoken_share_ratio"))
    assert "late" not in {client for client, _ in tokens}
    shares = sum(with_name(found, "protoken_share_ratio").values()) + found["protoken_commons_share_ratio",]
    assert pytest.approx(1) == shares


def test_a_login_that_may_only_read_is_enough(postgresql: str, policy: Path) -> None:
    """On PostgreSQL the exporter's own role reads whatever is exported, the preview too."""
    url = new_database(postgresql)
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    ledger.append(make_receipt("one", tokens=8))
    login = f"login_{uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {login} LOGIN IN ROLE protoken_exporter")
    with exporter(url.replace("postgres:@", f"{login}:@"), policy) as address:
        until(lambda: is_previewed(address))
        found = samples(address)
    ledger.close()

    assert (8, 2) == (
        found["protoken_generated_tokens_total", "demo"],
        found["protoken_attributed_tokens_total", "bank", "demo"],
    )


def test_names_that_nobody_registered_are_no_labels() -> None:
    """Were an account credited past the ledger, it would count among the others: sums hold and labels stay bounded."""
    labels = ClientLabels([("demo", "bank")])

    assert {"bank": 1, OTHER: 5} == labels.fold({"bank": 1, "x": 2, "y": 3, COMMONS: 7}, labels.all)


def test_clients_are_called_by_their_names() -> None:
    """Each label has one name, whatever the number of clients behind it; who has none is called by its id."""
    pairs = [("demo", f"c{number}") for number in range(MOST_CLIENTS + 5)]
    labels = ClientLabels(pairs, {"demo": {"c0": "Northern Hospital", f"c{MOST_CLIENTS}": "too late"}})

    assert ("Northern Hospital", "c1", OTHER) == (labels.names["c0"], labels.names["c1"], labels.names[OTHER])
    assert {*labels.all} == labels.names.keys()


def test_a_series_outside_the_catalogue_cannot_be_exported() -> None:
    """Whoever adds a series writes it into the catalogue first."""
    assert "protoken_new" not in CATALOGUE
    with pytest.raises(KeyError):
        Families().set("protoken_new", 1)


def test_receipts_of_wrong_clocks_are_counted(url: str, ledger: Ledger) -> None:
    """A receipt that says it was made long after its booking is counted, once, whichever scrape finds it."""
    ahead_us = time.time_ns() // 1000 + 20 * 60 * 1_000_000
    with exporter(url) as address:
        ledger.append(make_receipt("right"))
        ledger.append(make_receipt("wrong", created_at_us=ahead_us))
        first = samples(address)
        ledger.append(make_receipt("right too"))
        second = samples(address)

    assert [1, 1] == [found["protoken_ledger_misdated_receipts",] for found in (first, second)]
