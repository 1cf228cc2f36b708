"""What a member's key sees: its own client, whatever it asks for, and nothing that follows from others' figures."""

import pytest
from fastapi.testclient import TestClient

from rewards import periods
from rewards.credit import Receipt
from rewards.ledger.ledger import Ledger
from rewards.settlement.policy import Policy
from tests.deployment.api.conftest import MODELS, make_receipt
from tests.deployment.api.reading import DATABASES, read, rows
from tests.deployment.gateway.engines import CARD
from tests.deployment.gateway.test_refusals import error_of

pytestmark = pytest.mark.parametrize("url", DATABASES, indirect=True)

ELSEWHERE = "clinic-only"
PATHS = ("consortium", "clients", "clients/bank", "shares", "credit", "entries")
OTHERS = ("clinic", "port", "commons", "shop", "desk", ELSEWHERE)


def book_elsewhere(ledger: Ledger, number: int) -> None:
    """A receipt that the bank has no part in."""
    fields = vars(make_receipt(number)) | {
        "consortium": ELSEWHERE,
        "model_sha256": "ef" * 32,
        "amounts": {"clinic": number * 1_000_000},
    }
    ledger.append(Receipt(**fields))


def test_a_member_reads_its_own_figures(member: TestClient, operator: TestClient, books: Ledger) -> None:
    """Its credit, share and entries are those that an operator sees for it, without who asked and without totals."""
    share, all_entries = read(member, "shares"), rows(operator, "entries", client="bank")

    assert read(operator, "shares", client="bank")["accounts"] == share["accounts"]
    assert {"bank": str(books.balances()["bank"])} == read(member, "credit")["balances"]
    assert [{**entry, "application": None} for entry in all_entries] == rows(member, "entries", limit=2)
    assert [read(operator, "clients/bank")] == rows(member, "clients")
    assert read(operator, "clients/bank") == read(member, "clients/bank")
    assert {None} == {share["tokens"], share["period"]["first_sequence"], share["period"]["last_sequence"]}
    consortia = read(member, "consortium")
    models = [model for consortium in consortia["data"] for model in consortium["models"]]
    assert 2 == len(models)
    for body in (read(member, "credit"), consortia, *models):
        assert {None} == {body["receipts"], body["tokens"]}


def test_a_member_reads_closed_periods(member: TestClient, books: Ledger) -> None:
    """Shares, credit and entries of a closed period are there for a member as far as they are its own."""
    periods.close(books, "2026-10", Policy(pool=10_000, currency="EUR"), "test")
    books.append(make_receipt(12))
    period = periods.get(books, "2026-10")
    assert period is not None
    (line,) = (line for line in period.settlement.lines if line.account == "bank")

    assert {"bank": str(line.credit)} == read(member, "credit", period="2026-10")["balances"]
    (share,) = read(member, "shares", period="2026-10")["accounts"]
    assert str(line.credit) == share["credit"]
    assert line.credit == sum(int(entry["credit"]) for entry in rows(member, "entries", period="2026-10", limit=3))
    assert [{"account": "bank", "credit": "0", "share": 0.0}] == read(member, "shares")["accounts"]


def test_nothing_that_a_member_reads_names_others(member: TestClient, books: Ledger) -> None:
    """No body holds another client's id, the commons, or which application asked."""
    books.register(ELSEWHERE, {"clinic": "A clinic"})
    book_elsewhere(books, 20)
    for path in PATHS:
        text = member.get(f"/api/v1/{path}").text.replace(CARD.name, "")
        for name in OTHERS:
            assert f'"{name}"' not in text, path
    assert [CARD.name, "harbour"] == [each["id"] for each in read(member, "consortium")["data"]]


def test_what_is_booked_for_others_alone_changes_nothing_that_a_member_reads(member: TestClient, books: Ledger) -> None:
    """Totals, counts and cursors do not tell of it either; only the member's share of everything does, as it must."""
    books.register(ELSEWHERE, {"clinic": "A clinic"})
    asked = [(path, {}) for path in PATHS if path != "shares"]
    asked += [
        ("entries", {"limit": 3}),
        ("entries", {"limit": 9}),
        ("clients", {"limit": 1}),
        ("credit", {"client": "bank"}),
    ]
    asked += [(path, {"model": model}) for path in ("shares", "credit", "entries") for model in MODELS.values()]
    before = [read(member, path, **query) for path, query in asked]
    for number in range(20, 25):
        book_elsewhere(books, number)

    assert before == [read(member, path, **query) for path, query in asked]


def test_another_client_does_not_exist_for_a_member(member: TestClient, books: Ledger) -> None:
    """Asked for another client or consortium, the refusal is the same as for one that really is not there."""
    books.register(ELSEWHERE, {"clinic": "A clinic"})
    book_elsewhere(books, 20)
    for path in ("shares", "credit", "entries"):
        for param, there, missing in (
            ("client", "clinic", "nobody"),
            ("client", "commons", "nobody"),
            ("model", ELSEWHERE, "nothing"),
        ):
            seen = error_of(member.get(f"/api/v1/{path}", params={param: there}), 404)
            unseen = error_of(member.get(f"/api/v1/{path}", params={param: missing}), 404)
            assert unseen == {**seen, "message": seen["message"].replace(there, missing)}
        for model in ("ef" * 32, "00" * 32):
            assert 200 == member.get(f"/api/v1/{path}", params={"model": model}).status_code
        bodies = [read(member, path, model=model) for model in ("ef" * 32, "00" * 32)]
        assert bodies[0] == bodies[1]
    seen, unseen = (error_of(member.get(f"/api/v1/clients/{name}"), 404) for name in ("clinic", "nobody"))
    assert unseen == {**seen, "message": seen["message"].replace("clinic", "nobody")}


def test_a_cursor_opens_nothing(member: TestClient, operator: TestClient, books: Ledger) -> None:
    """With a cursor that an operator was given, a member still reads its own entries alone."""
    cursor = read(operator, "entries", limit=2)["next_cursor"]
    found = read(member, "entries", cursor=cursor)["data"]

    assert {"bank"} == {entry["account"] for entry in found}
    assert cursor is not None


def test_receipts_events_and_exports_are_not_for_members(member: TestClient, books: Ledger) -> None:
    """They speak of everybody, or of who asked."""
    for path in ("receipts", "receipts/r1", "events", "exports/entries.csv", "exports/receipts.jsonl"):
        assert "wrong_role" == error_of(member.get(f"/api/v1/{path}"), 403)["code"]
    answer = member.post("/api/v1/receipts/r1/reversal", json={"reason": "I want to"})
    assert "wrong_role" == error_of(answer, 403)["code"]
