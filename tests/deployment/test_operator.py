"""What operators read: the open period's shares, all-time credit, and single receipts."""

from fastapi.testclient import TestClient

from rewards import Ledger, Policy, periods
from tests.deployment.test_ingress import TEXT
from tests.deployment.test_refusals import error_of

POLICY = Policy(pool=10_000, currency="EUR")


def test_shares_of_an_empty_ledger_are_none(operator: TestClient) -> None:
    """Before anything is booked there are no accounts and an empty window."""
    body = operator.get("/api/v1/shares").json()

    assert [] == body["accounts"]
    assert {"previous": None, "opened_at_us": None, "first_sequence": 1, "last_sequence": 0} == body["period"]


def test_shares_are_those_of_the_open_period(operator: TestClient, application: TestClient, ledger: Ledger) -> None:
    """What a closed period settled is not in the open period's shares; what came after is, and sums to one."""
    application.post("/v1/completions", json=TEXT)
    periods.close(ledger, "2026-10", POLICY, "test")
    for _ in range(2):
        application.post("/v1/completions", json=TEXT)
    body = operator.get("/api/v1/shares").json()

    assert ("2026-10", 2, 3) == tuple(body["period"][name] for name in ("previous", "first_sequence", "last_sequence"))
    assert 6 == body["tokens"]
    credit = {line["account"]: line["credit"] for line in body["accounts"]}
    assert {"bank": 1_500_000, "clinic": 3_000_000, "commons": 1_500_000} == credit
    assert 1.0 == sum(line["share"] for line in body["accounts"])


def test_credit_is_all_that_was_ever_booked(operator: TestClient, application: TestClient, ledger: Ledger) -> None:
    """All-time balances go on over the close of a period, and sum to the tokens."""
    application.post("/v1/completions", json=TEXT)
    periods.close(ledger, "2026-10", POLICY, "test")
    application.post("/v1/completions", json=TEXT)
    body = operator.get("/api/v1/credit").json()

    assert (2, 6) == (body["receipts"], body["tokens"])
    assert 6_000_000 == sum(body["balances"].values())


def test_receipt_is_shown_whole(operator: TestClient, application: TestClient, ledger: Ledger) -> None:
    """Operators see any receipt as it was booked; one that is not there is 404."""
    made = application.post("/v1/completions", json=TEXT).json()

    assert {"object": "receipt", **(ledger.receipt(made["id"]) or {})} == operator.get(
        f"/api/v1/receipts/{made['id']}"
    ).json()
    assert "response_not_found" == error_of(operator.get("/api/v1/receipts/cmpl-none"), 404)["code"]
