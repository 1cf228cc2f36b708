"""Privileged calls are written down: who, what and with what outcome, and nothing that should not be."""

import asyncio
import logging
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from deployment.access.audit_trail import MINUTE_S, Calls
from rewards.keys.ring import KeyRing
from rewards.store import events
from rewards.store.events import Event
from tests.deployment.conftest import gate_over
from tests.deployment.outages import Clock, away
from tests.waiting import until


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    """200 to everything."""
    await PlainTextResponse("well")(scope, receive, send)


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    """Nobody foresaw this."""
    raise RuntimeError("unforeseen")


def calls(keys: KeyRing) -> list[Event]:
    with keys.database.read() as connection:
        return events.find(connection, kinds=["call"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(keys: KeyRing, clock: Clock) -> Iterator[Calls]:
    """The book that calls are written in."""
    book = Calls(keys.database, clock)
    yield book
    book.close()


@pytest.fixture
def call(keys: KeyRing, book: Calls) -> Callable[..., int]:
    """A function that calls as a role and returns the status."""

    def call(role: str | None, method: str, path: str, app: ASGIApp = answers, **options: object) -> int:
        client = "bank" if role == "member" else None
        key = keys.create(role, role, actor="test", client=client) if role else "nonsense"
        headers = {"Authorization": f"Bearer {key}"}
        http = TestClient(gate_over(app, keys, book), raise_server_exceptions=False, headers=headers)
        return http.request(method, path, **options).status_code

    return call


def test_a_call_is_an_event(keys: KeyRing, call: Callable[..., int]) -> None:
    """The key's id, the path, the method, the status and the role are there when the caller has the answer."""
    call("operator", "POST", "/api/v1/periods/2026-11/close")
    (event,) = calls(keys)

    assert keys.list()[0].key_id == event.actor
    assert "/api/v1/periods/2026-11/close" == event.subject
    assert {"method": "POST", "status": 200, "role": "operator"} == event.document


def test_refused_calls_of_good_keys_are_counted(keys: KeyRing, call: Callable[..., int], book: Calls) -> None:
    """Who tries what its role may not do is written down with the refusal, under the route and not the path."""
    call("application", "GET", "/api/v1/credit")
    call("member", "GET", "/api/v1/receipts/x")
    call("auditor", "DELETE", "/api/v1/keys/x")
    assert [] == calls(keys)
    book.close()

    assert [
        (
            "/api/v1/{consortium|clients|shares|credit|entries}/**",
            {"method": "GET", "status": 403, "role": "application", "count": 1},
        ),
        ("/api/v1/**", {"method": "GET", "status": 403, "role": "member", "count": 1}),
        ("/api/v1/keys/**", {"method": "DELETE", "status": 403, "role": "auditor", "count": 1}),
    ] == [(event.subject, event.document) for event in calls(keys)]


def test_a_minute_of_refusals_is_one_event_however_many_and_wherever_they_go(
    keys: KeyRing, book: Calls, clock: Clock
) -> None:
    """Three hundred calls of one key, on as many paths and with made-up methods, leave one row for the minute."""
    presented = keys.create("application", "x", actor="test")
    http = TestClient(gate_over(answers, keys, book), headers={"Authorization": f"Bearer {presented}"})
    for number in range(300):
        method = "GET" if number % 2 else f"X{number}"
        assert 403 == http.request(method, f"/api/v1/receipts/{number}").status_code
    assert [] == calls(keys)
    clock.now += MINUTE_S
    other = keys.check(keys.create("auditor", "y", actor="test"))
    book.count(other, "DELETE", "/api/v1/keys/**", 403)
    until(lambda: calls(keys))
    assert 403 == http.get("/api/v1/receipts/x").status_code
    book.close()
    first, *later = calls(keys)

    document = {"method": "GET other", "status": 403, "role": "application", "count": 300}
    assert ("/api/v1/**", document) == (first.subject, first.document)
    assert {("/api/v1/**", 1), ("/api/v1/keys/**", 1)} == {(each.subject, each.document["count"]) for each in later}


def test_what_a_member_asks_of_others_is_counted(keys: KeyRing, book: Calls) -> None:
    """A route that it may call, for what is not its own or is not there: one row, however many paths are tried."""

    async def finds_nothing(scope: Scope, receive: Receive, send: Send) -> None:
        is_own = scope["path"].endswith("/bank")
        await PlainTextResponse("", status_code=200 if is_own else 404)(scope, receive, send)

    presented = keys.create("member", "x", actor="test", client="bank")
    http = TestClient(gate_over(finds_nothing, keys, book), headers={"Authorization": f"Bearer {presented}"})
    for number in range(50):
        assert 404 == http.get(f"/api/v1/statements/{number}/clinic").status_code
    assert 200 == http.get("/api/v1/statements/2026-11/bank").status_code
    book.close()
    counted = {"method": "GET", "status": 404, "role": "member", "count": 50}

    assert [
        ("/api/v1/statements/2026-11/bank", {"method": "GET", "status": 200, "role": "member"}),
        ("/api/v1/{periods|statements|log|rounds}/**", counted),
    ] == [(each.subject, each.document) for each in calls(keys)]


def test_a_minute_ends_by_itself(keys: KeyRing) -> None:
    """Nobody has to call again, and the service need not stop, for a refusal to be written down."""
    at = iter([59.8] + [60.1] * 1000)
    book = Calls(keys.database, lambda: next(at))
    book.count(keys.check(keys.create("auditor", "x", actor="test")), "GET", "/api/v1/**", 403)
    until(lambda: len(calls(keys)) == 1)
    book.close()


def test_refusals_come_within_the_rate_of_a_key(keys: KeyRing, book: Calls) -> None:
    """An application that may ask twice a minute is refused twice, and then told to wait, which leaves no trace."""
    presented = keys.create("application", "x", actor="test", requests_per_minute=2)
    http = TestClient(gate_over(answers, keys, book), headers={"Authorization": f"Bearer {presented}"})
    statuses = [http.get("/api/v1/credit").status_code for _ in range(5)]
    book.close()

    assert [403, 403, 429, 429, 429] == statuses
    assert [2] == [event.document["count"] for event in calls(keys)]


def test_what_could_not_be_counted_in_the_ledger_is_counted_on(
    keys: KeyRing, book: Calls, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A minute that ends while the book is away is written with the next one, in the same row."""
    key = keys.check(keys.create("auditor", "x", actor="test"))
    with away(keys.database, "events"):
        book.count(key, "GET", "/api/v1/**", 403)
        clock.now += MINUTE_S
        book.count(key, "GET", "/api/v1/**", 403)
        until(lambda: "call not recorded" in caplog.text)
    book.close()

    assert [2] == [event.document["count"] for event in calls(keys)]


def test_what_is_not_privileged_is_not_written_down(keys: KeyRing, call: Callable[..., int]) -> None:
    """Neither the model's API nor strangers nor paths that do not exist fill the book."""
    statuses = [
        call("application", "GET", "/v1/models"),
        call(None, "GET", "/api/v1/credit"),
        call("operator", "GET", "/nothing"),
        call("operator", "GET", "/openapi.json"),
    ]

    assert [200, 401, 404, 200] == statuses
    assert [] == calls(keys)


def test_a_failing_call_is_an_event(keys: KeyRing, call: Callable[..., int]) -> None:
    """A call that fails in a way nobody foresaw is written down as 500."""
    assert 500 == call("operator", "GET", "/api/v1/credit", app=fails)
    assert [500] == [event.document["status"] for event in calls(keys)]


def test_an_event_holds_no_secret(keys: KeyRing, call: Callable[..., int]) -> None:
    """No query, no body, no header, and no key that somebody put into the path."""
    secret = "ptk_0123456789ab_" + "S" * 43
    call(
        "admin", "POST", f"/api/v1/keys/{secret}/rotate?token=HIDDEN", content=b"HIDDEN", headers={"X-Secret": "HIDDEN"}
    )
    (event,) = calls(keys)

    assert "/api/v1/keys/ptk_.../rotate" == event.subject
    assert "HIDDEN" not in repr(event)


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("/api/v1/clients/a%00b", "/api/v1/clients/a%00b"),
        ("/api/v1/clients/%0A%F0%9F%8F%A6", "/api/v1/clients/%0A%F0%9F%8F%A6"),
        ("/api/v1/clients/%FF", "/api/v1/clients/%EF%BF%BD"),
        ("/api/v1/" + "x" * 5000, "/api/v1/" + "x" * 292),
    ],
)
def test_odd_paths_do_not_escape_the_book(keys: KeyRing, call: Callable[..., int], path: str, subject: str) -> None:
    """Whatever a path holds, it is written down, in plain characters and at most 300 of the path's."""
    call("operator", "GET", path)

    assert [subject] == [event.subject for event in calls(keys)]


def test_a_caller_that_goes_away_is_written_down(keys: KeyRing) -> None:
    """A call that is cancelled before there was a status is an event with 499."""
    presented = keys.create("operator", "x", actor="test")
    begun = asyncio.Event()

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(60)

    async def main() -> None:
        headers = [(b"authorization", f"Bearer {presented}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/api/v1/credit", "headers": headers, "query_string": b""}
        task = asyncio.create_task(gate_over(hangs, keys)(scope, None, None))  # type: ignore[arg-type]
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [499] == [event.document["status"] for event in calls(keys)]


def test_without_a_book_the_call_goes_on(
    keys: KeyRing, call: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    """While the book cannot be written the answer is what it would be, and a log tells of the call."""
    presented = keys.create("operator", "x", actor="test")
    headers = {"Authorization": f"Bearer {presented}"}
    http = TestClient(gate_over(answers, keys), headers=headers)
    with away(keys.database, "events"):
        assert [200, 403] == [http.get("/api/v1/credit").status_code, http.delete("/api/v1/credit").status_code]

    assert [] == calls(keys)
    assert 1 == len([record for record in caplog.records if record.levelno == logging.ERROR])
    assert keys.list()[0].key_id in caplog.text
    assert presented.split("_", 2)[2] not in caplog.text
