"""Receipts one by one, and their reversal."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from deployment.schemas.receipts import Receipt
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.reading import DATABASES, read
from tests.deployment.gateway.test_refusals import error_of
from tests.deployment.gateway.test_routes import TEXT


def test_receipt_is_shown_whole(operator: TestClient, application: TestClient, ledger: Ledger) -> None:
    """Operators see any receipt as it was booked; one that is not there is 404."""
    made = application.post("/v1/completions", json=TEXT).json()

    booked = Receipt.model_validate(ledger.receipt(made["id"])).model_dump(mode="json")
    assert booked == read(operator, f"receipts/{made['id']}")
    assert "response_not_found" == error_of(operator.get("/api/v1/receipts/cmpl-none"), 404)["code"]


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_a_receipt_is_reversed_once(operator: TestClient, books: Ledger, keys: KeyRing) -> None:
    """The counter-entry is booked in the operator's name; asked again, the answer is the first one, with 200."""
    before = books.balances()
    first = operator.post("/api/v1/receipts/r7/reversal", json={"reason": "our own load test"})
    again = operator.post("/api/v1/receipts/r7/reversal", json={"reason": "another reason"})

    assert [201, 200] == [first.status_code, again.status_code]
    assert first.json() == again.json() == Receipt.model_validate(books.receipt("reversal-r7")).model_dump(mode="json")
    assert ("reversal", "r7", "-7") == tuple(first.json()[name] for name in ("kind", "reverses", "tokens"))
    (operator_key,) = (key for key in keys.list() if key.role == "operator")
    assert {"reason": "our own load test", "actor": operator_key.key_id} == first.json()["measurement"]
    booked = books.receipt("r7")
    assert booked is not None
    taken = {account: before[account] - amount for account, amount in books.balances().items()}
    assert {**dict.fromkeys(before, 0), **booked.amounts} == taken


def test_what_cannot_be_reversed_is_said(operator: TestClient, books: Ledger) -> None:
    """An unknown response is 404, a reversal 409; nothing is booked."""
    for response_id, status, code in (("r99", 404, "response_not_found"), ("reversal-r4", 409, "not_reversible")):
        answer = operator.post(f"/api/v1/receipts/{response_id}/reversal", json={"reason": "why not"})
        assert ("response_id", code) == (error_of(answer, status)["param"], error_of(answer, status)["code"])
    assert 13 == books.last_sequence()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": " "},
        {"reason": "a\nb"},
        {"reason": "a\0b"},
        {"reason": "x" * 1001},
        {"reason": 5},
        {"reason": None},
        [],
    ],
)
def test_a_bad_reason_is_refused(operator: TestClient, books: Ledger, body: Any) -> None:
    """A reversal needs a reason that people can read; without one, nothing is booked."""
    error = error_of(operator.post("/api/v1/receipts/r7/reversal", json=body), 400)

    assert error["param"] == ("reason" if body != [] else None)
    assert 13 == books.last_sequence()


def test_a_field_that_does_not_exist_is_refused(operator: TestClient, books: Ledger) -> None:
    """A misspelt field is named; half a character in a text is a bad request too."""
    answer = operator.post("/api/v1/receipts/r7/reversal", json={"reason": "a", "reasons": "b"})
    broken = operator.post(
        "/api/v1/receipts/r7/reversal", content=b'{"reason": "\\ud800"}', headers={"Content-Type": "application/json"}
    )

    assert "reasons" == error_of(answer, 400)["param"]
    assert "reason" == error_of(broken, 400)["param"]


def test_only_an_operator_reverses(auditor: TestClient, admin: TestClient, books: Ledger) -> None:
    """Auditors and admins read receipts and change none."""
    for caller in (auditor, admin):
        assert "r7" == read(caller, "receipts/r7")["response_id"]
        answer = caller.post("/api/v1/receipts/r7/reversal", json={"reason": "why not"})
        assert "wrong_role" == error_of(answer, 403)["code"]
