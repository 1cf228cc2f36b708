"""`/shares` and `/credit`: of the open period, of a closed one, of all time."""

from collections import Counter

import pytest
from fastapi.testclient import TestClient

from rewards import periods
from rewards.ledger.ledger import Ledger
from rewards.settlement.policy import Policy
from rewards.store.database import now_us
from tests.deployment.api.conftest import MODELS, OTHER, make_receipt
from tests.deployment.api.reading import DATABASES, numbers, read, rows
from tests.deployment.gateway.engines import CARD
from tests.deployment.gateway.test_refusals import error_of
from tests.deployment.gateway.test_routes import TEXT

POLICY = Policy(pool=10_000, currency="EUR")


def close(ledger: Ledger, name: str) -> periods.Period:
    periods.close(ledger, name, POLICY, "test")
    period = periods.get(ledger, name)
    assert period is not None
    return period


def test_shares_of_an_empty_ledger_are_none(operator: TestClient) -> None:
    """Before anything is booked there are no accounts and an empty window."""
    body = read(operator, "shares")

    assert [] == body["accounts"]
    assert "0" == body["tokens"]
    assert (1, 0) == (body["period"]["first_sequence"], body["period"]["last_sequence"])
    assert {None} == {body["period"][name] for name in ("name", "previous", "opened_at_us", "closed_at_us")}


def test_shares_are_those_of_the_open_period(operator: TestClient, application: TestClient, ledger: Ledger) -> None:
    """What a closed period settled is not in the open period's shares; what came after is, and sums to one."""
    application.post("/v1/completions", json=TEXT)
    closed = close(ledger, "2026-10")
    for _ in range(2):
        application.post("/v1/completions", json=TEXT)
    body = read(operator, "shares")

    assert {
        "name": None,
        "previous": "2026-10",
        "opened_at_us": closed.closed_at_us,
        "closed_at_us": None,
        "first_sequence": 2,
        "last_sequence": 3,
    } == body["period"]
    assert "6" == body["tokens"]
    credit = {line["account"]: line["credit"] for line in body["accounts"]}
    assert {"bank": "1500000", "clinic": "3000000", "commons": "1500000"} == credit
    assert 1.0 == sum(line["share"] for line in body["accounts"])


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_shares_and_credit_of_a_closed_period_are_those_it_was_settled_by(operator: TestClient, books: Ledger) -> None:
    """What came since, and what takes back from it, changes neither; all time has everything."""
    first = close(books, "2026-10")
    books.append(make_receipt(12))
    books.reverse("r1", "a late question", "tester")
    second = close(books, "2026-11")
    for period in (first, second):
        settled = {line.account: line.credit for line in period.settlement.lines}
        shares, credit = read(operator, "shares", period=period.name), read(operator, "credit", period=period.name)

        assert (period.name, period.closed_at_us) == (shares["period"]["name"], shares["period"]["closed_at_us"])
        assert str(period.settlement.tokens) == shares["tokens"] == credit["tokens"]
        assert +Counter(settled) == +Counter({line["account"]: int(line["credit"]) for line in shares["accounts"]})
        assert +Counter(settled) == +Counter(numbers(credit["balances"]))
    assert [None, "2026-10"] == [
        read(operator, "shares", period=name)["period"]["previous"] for name in ("2026-10", "2026-11")
    ]
    assert [] == read(operator, "shares")["accounts"]
    assert books.balances() == numbers(read(operator, "credit")["balances"])


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_entries_sum_to_credit_under_every_filter(operator: TestClient, books: Ledger) -> None:
    """The entries of a client, a model or a period, summed by account, are the credit of it."""
    close(books, "2026-10")
    books.append(make_receipt(12))
    books.reverse("r2", "a late question", "tester")
    for period in (None, "2026-10"):
        for client in (None, "bank", "commons"):
            for model in (None, CARD.name, OTHER, MODELS[OTHER]):
                asked = {"period": period, "client": client, "model": model}
                sums: Counter[str] = Counter()
                for entry in rows(operator, "entries", **asked):
                    sums[entry["account"]] += int(entry["credit"])
                assert +sums == +Counter(numbers(read(operator, "credit", **asked)["balances"])), asked


def test_credit_is_all_that_was_ever_booked(operator: TestClient, application: TestClient, ledger: Ledger) -> None:
    """All-time balances go on over the close of a period, and sum to the tokens."""
    application.post("/v1/completions", json=TEXT)
    close(ledger, "2026-10")
    application.post("/v1/completions", json=TEXT)
    body = read(operator, "credit")

    assert (2, "6") == (body["receipts"], body["tokens"])
    assert 6_000_000 == sum(numbers(body["balances"]).values())


def test_a_model_s_credit_sums_to_its_tokens(operator: TestClient, books: Ledger) -> None:
    """Narrowed to a consortium, by name or by hash, credit and shares are of its receipts alone."""
    for name, model_sha256 in MODELS.items():
        by_name, by_hash = (read(operator, "credit", model=model) for model in (name, model_sha256))

        assert by_name == by_hash
        assert int(by_name["tokens"]) * 1_000_000 == sum(numbers(by_name["balances"]).values())
        assert pytest.approx(1.0) == sum(line["share"] for line in read(operator, "shares", model=name)["accounts"])
    assert {} == read(operator, "credit", model="0" * 64)["balances"]


def test_one_client_s_share_is_of_everybody_s_credit(operator: TestClient, books: Ledger) -> None:
    """Narrowed to a client, the share stays what it was among all."""
    everybody = {line["account"]: line for line in read(operator, "shares")["accounts"]}

    assert [everybody["bank"]] == read(operator, "shares", client="bank")["accounts"]
    assert {"port": everybody["port"]["credit"]} == read(operator, "credit", client="port")["balances"]


def test_late_receipts_are_of_the_period_they_count_in(
    operator: TestClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receipt that was made after a period's end is in the next period's shares and entries, though booked before."""
    soon = now_us() + 300_000_000
    ledger.append_many([make_receipt(1), make_receipt(2, soon), make_receipt(4)])
    periods.close(ledger, "2026-10", POLICY, "test", until_us=now_us())
    ledger.append(make_receipt(7))

    assert [str(1 + 4), str(2 + 7)] == [read(operator, "shares", period=name)["tokens"] for name in ("2026-10", None)]
    monkeypatch.setattr("rewards.periods.period_end.now_us", lambda *_: soon + 1)
    close(ledger, "2026-11")
    for name, there in (("2026-10", ["r1", "r4"]), ("2026-11", ["r2", "r7"])):
        found = rows(operator, "entries", period=name, client="bank", limit=1)
        assert there == [entry["response_id"] for entry in found]


FILTERED = ("shares", "credit", "entries", "receipts", "exports/entries.csv", "exports/receipts.jsonl")


@pytest.mark.parametrize("path", FILTERED)
def test_what_is_not_there_is_named(operator: TestClient, path: str) -> None:
    """A period, client or model that the ledger does not know is 404 and names the parameter, not an empty answer."""
    for param in ("period", "client", "model"):
        error = error_of(operator.get(f"/api/v1/{path}", params={param: "nothing"}), 404)

        assert (param, f"{param}_not_found") == (error["param"], error["code"])
        assert "'nothing'" in error["message"]


@pytest.mark.parametrize("path", [*FILTERED, "clients", "events"])
def test_a_bad_parameter_is_named(operator: TestClient, path: str) -> None:
    """A value that cannot be, and a parameter that does not exist, are 400 by name."""
    limits = ("0", "-1", "1001", "ten", str(2**64), "1.5", "")
    bad = [("perid", "2026-10"), ("period", ""), ("client", "a\0b"), ("model", "x" * 201), ("kind", "a\0b")]
    for param, value in [*bad, ("cursor", "nonsense"), *(("limit", limit) for limit in limits)]:
        error = error_of(operator.get(f"/api/v1/{path}", params={param: value}), 400)

        assert param == error["param"]
        assert param in error["message"]
