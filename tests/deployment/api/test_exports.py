"""Exports: entries as CSV and receipts as CloudEvents, whole, narrowed, harmless and in flat memory."""

import asyncio
import csv
import io
import json
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.api.routes import exports
from rewards import periods
from rewards.credit import Receipt
from rewards.ledger.ledger import Ledger
from rewards.periods import holds
from rewards.settlement.policy import Policy
from rewards.store.database import now_us
from tests.deployment.api.conftest import OTHER, make_receipt
from tests.deployment.api.reading import DATABASES, read, rows
from tests.deployment.gateway.engines import CARD
from tests.deployment.gateway.test_refusals import error_of
from tests.deployment.outages import away

HOUR_US = 3_600_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def table(caller: TestClient, **query: str) -> list[dict[str, str]]:
    """The rows of the exported CSV."""
    response = caller.get("/api/v1/exports/entries.csv", params=query)
    assert 200 == response.status_code, response.text
    assert "text/csv; charset=utf-8" == response.headers["content-type"]
    return list(csv.DictReader(io.StringIO(response.text, newline=""), strict=True))


def cloud_events(caller: TestClient, **query: str) -> list[dict[str, object]]:
    """The exported events."""
    response = caller.get("/api/v1/exports/receipts.jsonl", params=query)
    assert 200 == response.status_code, response.text
    assert "application/x-ndjson" == response.headers["content-type"]
    assert response.text == "" or response.text.endswith("\n")
    return [json.loads(line) for line in response.text.split("\n")[:-1]]


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_exported_entries_are_the_entries(operator: TestClient, books: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each entry, under any filter and however many pages it takes; credit and times are integers."""
    periods.close(books, "2026-10", Policy(pool=10_000, currency="EUR"), "test")
    books.append(make_receipt(12))
    for page_rows in (1, 2, 7, 1000):
        monkeypatch.setattr(exports, "PAGE_ROWS", page_rows)
        for query in ({}, {"client": "bank"}, {"model": OTHER}, {"period": "2026-10", "client": "commons"}):
            listed = rows(operator, "entries", **query)
            found = table(operator, **query)
            names = listed[0].keys() - {"object"}
            assert [{name: "" if entry[name] is None else str(entry[name]) for name in names} for entry in listed] == [
                {name: row[name] for name in names} for row in found
            ]
            for row in found:
                at = datetime.fromisoformat(row["booked_at"])
                assert int(row["booked_at_us"]) == (at - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_exported_receipts_are_cloud_events(
    operator: TestClient, books: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line is a CloudEvent 1.0 whose data is the receipt, in the order of booking."""
    for page_rows in (1, 3, 1000):
        monkeypatch.setattr(exports, "PAGE_ROWS", page_rows)
        for query in ({}, {"client": "port"}, {"model": CARD.name}):
            found = cloud_events(operator, **query)
            receipts = [
                {name: value for name, value in row.items() if name != "object"}
                for row in rows(operator, "receipts", **query)
            ]
            assert receipts == [event["data"] for event in found]
            for event, receipt in zip(found, receipts, strict=True):
                assert ("1.0", "protoken.receipt.v1") == (event["specversion"], event["type"])
                assert (receipt["response_id"], receipt["application"]) == (event["id"], event["subject"])
                assert f"/consortia/{receipt['consortium']}" == event["source"]
                at = datetime.fromisoformat(str(event["time"]))
                assert receipt["booked_at_us"] == (at - EPOCH) // timedelta(microseconds=1)
    assert len({(event["source"], event["id"]) for event in cloud_events(operator)}) == 13


def test_what_a_meter_sums_is_what_the_ledger_holds(operator: TestClient, books: Ledger) -> None:
    """Tokens by subject over the events are the tokens that each application is billed for, reversals taken off."""
    found = cloud_events(operator)

    assert int(read(operator, "credit")["tokens"]) == sum(int(event["data"]["tokens"]) for event in found)  # type: ignore[index]


@pytest.mark.parametrize("name", ['=HYPERLINK("http://x","y")', "+1", "-2+3", "@SUM(A1)", "＝1", 'a,"b', "Grüß 🏦"])
def test_no_cell_is_a_formula(operator: TestClient, ledger: Ledger, name: str) -> None:
    """A text that a spreadsheet would run has an apostrophe before it; every other comes back as it was."""
    fields = vars(make_receipt(1)) | {"response_id": name, "application": name, "amounts": {"bank": 1_000_000}}
    ledger.append(Receipt(**fields))
    ledger.reverse(name, "a test question", "tester")
    booked, reversed_ = table(operator)
    shown = f"'{name}" if name[0] in "=+-@＝" else name

    assert [shown, shown] == [booked["response_id"], booked["application"]]
    assert (f"reversal-{name}", shown, "-1000000", "-1") == tuple(
        reversed_[column] for column in ("response_id", "reverses", "credit", "tokens")
    )
    assert name == cloud_events(operator)[0]["id"]


def test_an_empty_export_is_a_header_or_nothing(operator: TestClient) -> None:
    """Before anything is booked there are no lines, and the header says what there would be."""
    header = operator.get("/api/v1/exports/entries.csv").text

    assert header.startswith("sequence,booked_at,")
    assert header.endswith("account,credit\r\n")
    assert [] == table(operator) == cloud_events(operator)


@pytest.mark.parametrize("path", ["entries.csv", "receipts.jsonl"])
def test_an_export_is_refused_while_the_ledger_is_away(operator: TestClient, books: Ledger, path: str) -> None:
    """It is a 503 in the shape of every refusal, and not an empty file."""
    with away(books.database, "entries"):
        response = operator.get(f"/api/v1/exports/{path}")

    assert "ledger_unavailable" == error_of(response, 503)["code"]


def test_readers_export_and_others_do_not(
    auditor: TestClient, admin: TestClient, application: TestClient, books: Ledger
) -> None:
    """Auditors and admins may, applications may not."""
    assert table(auditor) == table(admin)
    assert "wrong_role" == error_of(application.get("/api/v1/exports/entries.csv"), 403)["code"]


def test_an_export_is_streamed_in_flat_memory(app: FastAPI, operator: TestClient, ledger: Ledger) -> None:
    """However much is booked, no more of it is held than a page: the parts come one page at a time."""
    for begin in range(1, 6001, 1000):
        ledger.append_many([make_receipt(number) for number in range(begin, begin + 1000)])
    books = app.state.books
    peaks = []
    for query in ({"model": OTHER}, {}):  # a fifth of the receipts is OTHER's; that is some pages too
        parts = exports.entries(books, exports.Filters(**query)).body_iterator
        tracemalloc.start()
        length = _drained(parts)
        peaks.append((length, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()

    (small, little), (large, much) = peaks
    assert large > 4 * small
    assert much < 1.5 * little


def _drained(parts: object) -> int:
    """How many characters come, none of them kept."""

    async def drain() -> int:
        return sum([len(part) async for part in parts])  # type: ignore[attr-defined]

    return asyncio.run(drain())


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_every_receipt_is_in_exactly_one_period_s_export(operator: TestClient, ledger: Ledger) -> None:
    """Reversals of the period itself, of earlier ones, of a response that was held, of what was made later: once."""
    policy = Policy(pool=10_000, currency="EUR")
    ledger.append_many([make_receipt(number) for number in range(1, 8)])
    ledger.append(make_receipt(20, created_at_us=now_us() + HOUR_US))  # made, as it says, after the first period's end
    ledger.reverse("r4", "a test question", "tester")
    hold = holds.place(ledger, "response", "r6", "audit", "tester")
    periods.close(ledger, "2026-10", policy.model_copy(update={"clock_skew_minutes": 120}), "test")
    ledger.append(make_receipt(9))
    for number in (1, 9, 20):
        ledger.reverse(f"r{number}", "a test question", "tester")
    periods.close(ledger, "2026-11", policy, "test")
    holds.release(ledger, hold, "audited", "tester")
    ledger.append(make_receipt(10))
    for number in (2, 6):
        ledger.reverse(f"r{number}", "a test question", "tester")
    periods.close(ledger, "2026-12", policy, "test")

    exported = [
        [event["id"] for event in cloud_events(operator, period=name)] for name in ("2026-10", "2026-11", "2026-12")
    ]
    assert sorted(event["id"] for event in cloud_events(operator)) == sorted(each for part in exported for each in part)
    assert exported == [
        list(dict.fromkeys(row["response_id"] for row in table(operator, period=name)))
        for name in ("2026-10", "2026-11", "2026-12")
    ]
    assert ["reversal-r1" in part for part in exported] == [False, True, False]
    assert ["reversal-r2" in part for part in exported] == [False, False, True]
    credit = read(operator, "credit", period="2026-11")["balances"]
    settled = {line["account"]: line["credit"] for line in read(operator, "periods/2026-11")["settlement"]["lines"]}
    assert credit == {account: amount for account, amount in settled.items() if amount != "0"} | {
        account: "0" for account in credit if settled[account] == "0"
    }
