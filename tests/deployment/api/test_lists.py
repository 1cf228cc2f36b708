"""Entries, receipts, events, clients and consortia: whole lists, pages and filters."""

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployment.schemas.receipts import Receipt
from rewards.ledger.ledger import Ledger
from rewards.store import events
from tests.deployment.api.conftest import MODELS, OTHER, make_receipt
from tests.deployment.api.reading import read, rows
from tests.deployment.gateway.engines import CARD
from tests.deployment.gateway.test_refusals import error_of

AS_IT_IS = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(
    limit=st.integers(1, 40),
    client=st.sampled_from([None, "bank", "port", "commons"]),
    model=st.sampled_from([None, CARD.name, OTHER]),
)
@AS_IT_IS
def test_any_limit_gives_the_same_rows(
    operator: TestClient, books: Ledger, limit: int, client: str | None, model: str | None
) -> None:
    """Pages one after the other are the list read at once, whatever their size and whatever narrows it."""
    for path in ("entries", "receipts"):
        whole = rows(operator, path, client=client, model=model)
        assert whole == rows(operator, path, limit=limit, client=client, model=model)
    assert len(rows(operator, "clients", limit=limit)) == 3
    assert 3 <= len(rows(operator, "events", limit=limit, kind="client.registered"))


@given(limit=st.integers(1, 7), bookings=st.lists(st.integers(0, 2), max_size=4))
@AS_IT_IS
def test_what_is_booked_while_somebody_pages_is_neither_lost_nor_doubled(
    operator: TestClient, books: Ledger, limit: int, bookings: list[int]
) -> None:
    """Read to the end while receipts and reversals are booked, each list is what it is when read at once afterwards."""
    for path in ("entries", "receipts"):
        found, cursor, rest = [], None, iter(bookings)
        while True:
            for _ in range(next(rest, 0)):
                number = books.last_sequence() + 1
                books.append(make_receipt(number))
                books.reverse(f"r{number}", "a test question", "tester")
            page = read(operator, path, limit=limit, cursor=cursor)
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert rows(operator, path) == found


def test_entries_say_what_their_receipts_say(operator: TestClient, books: Ledger) -> None:
    """An entry carries its receipt's fields; its credit is the receipt's amount for the account."""
    for entry in rows(operator, "entries"):
        booked = books.receipt(entry["response_id"])
        assert booked is not None
        receipt = {**vars(booked), "tokens": str(booked.tokens)}
        assert str(booked.amounts[entry["account"]]) == entry["credit"]
        assert {name: entry[name] for name in entry.keys() & receipt.keys()} == {
            name: receipt[name] for name in entry.keys() & receipt.keys()
        }
        assert {"object", "account", "credit"} == entry.keys() - receipt.keys()


def test_receipts_are_narrowed(operator: TestClient, books: Ledger) -> None:
    """By application, kind, model and client; each receipt is whole, as it was booked."""
    whole = [Receipt.model_validate(receipt).model_dump(mode="json") for receipt in books.receipts_after(0)]

    assert whole == rows(operator, "receipts")
    assert [each for each in whole if each["application"] == "shop"] == rows(operator, "receipts", application="shop")
    assert ["reversal-r4", "reversal-r5"] == [
        each["response_id"] for each in rows(operator, "receipts", kind="reversal", limit=1)
    ]
    assert ["r10"] == [
        each["response_id"]
        for each in rows(operator, "receipts", kind="response", model=OTHER, application="desk", client="port")
    ]
    assert [] == rows(operator, "receipts", application="nobody")
    assert "kind" == error_of(operator.get("/api/v1/receipts", params={"kind": "gift"}), 400)["param"]


def test_a_cursor_holds_for_its_own_list(operator: TestClient, books: Ledger) -> None:
    """The cursor of one list is refused by the others."""
    paths = ("entries", "receipts", "events", "clients")
    cursors = {path: read(operator, path, limit=1)["next_cursor"] for path in paths}
    for path in paths:
        for other, cursor in cursors.items():
            response = operator.get(f"/api/v1/{path}", params={"cursor": cursor})
            assert (200 if other == path else 400) == response.status_code, (path, other)


def test_clients_have_their_credit(operator: TestClient, books: Ledger) -> None:
    """Each client is there once, by id, with its consortia and with its balance."""
    found = rows(operator, "clients")

    assert ["bank", "clinic", "port"] == [client["id"] for client in found]
    assert [[CARD.name, OTHER], [CARD.name], [OTHER]] == [client["consortia"] for client in found]
    assert {**books.balances(), "commons": None} == {
        **{client["id"]: int(client["credit"]) for client in found},
        "commons": None,
    }
    assert found == [read(operator, f"clients/{client['id']}") for client in found]
    assert "A bank" == found[0]["name"]
    assert "client_not_found" == error_of(operator.get("/api/v1/clients/commons"), 404)["code"]


def test_the_consortium_s_page_adds_up(operator: TestClient, books: Ledger) -> None:
    """Consortia come with clients and models; their receipts and tokens are all of the ledger's."""
    body = read(operator, "consortium")

    assert [(CARD.name, ["clinic", "bank"]), (OTHER, ["port", "bank"])] == [
        (each["id"], each["clients"]) for each in body["data"]
    ]
    models = [model for each in body["data"] for model in each["models"]]
    assert list(MODELS.values()) == [model["model_sha256"] for model in models]
    assert (13, books.tokens()) == (body["receipts"], int(body["tokens"]))
    assert (13, books.tokens()) == (
        sum(model["receipts"] for model in models),
        sum(int(model["tokens"]) for model in models),
    )
    assert (0, None) == (body["periods"], body["last_period"])


def test_events_are_the_book_of_events(operator: TestClient, ledger: Ledger) -> None:
    """Every event up to the call itself, whole and in order; narrowed by kind and by subject."""
    with ledger.database.read() as connection:
        written = [{"object": "event", **vars(event)} for event in events.find(connection)]
    found = rows(operator, "events")

    assert written == found[: len(written)]
    assert ["client.registered"] * 4 == [each["kind"] for each in rows(operator, "events", kind="client.registered")]
    assert [f"{OTHER}/port"] == [each["subject"] for each in rows(operator, "events", subject=f"{OTHER}/port", limit=1)]
    assert [] == rows(operator, "events", kind="client.registered", subject="nobody")


@pytest.mark.parametrize("path", ["clients/a%00b", "receipts/a%00b", "receipts/" + "x" * 201])
def test_a_name_that_no_ledger_holds_is_refused(operator: TestClient, path: str) -> None:
    """A NUL or an endless name in a path is a bad request, not a failure of the database."""
    assert error_of(operator.get(f"/api/v1/{path}"), 400)["param"] in {"client", "response_id"}
