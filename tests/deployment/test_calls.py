"""Privileged calls are written down: who, what and with what outcome, and nothing that should not be."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from deployment.security import Gate
from rewards import KeyRing, events
from rewards.events import Event
from tests.deployment.outages import away


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
def call(keys: KeyRing) -> Callable[..., int]:
    """A function that calls as a role and returns the status."""

    def call(role: str | None, method: str, path: str, app: ASGIApp = answers, **options: object) -> int:
        client = "bank" if role == "member" else None
        key = keys.create(role, role, actor="test", client=client) if role else "nonsense"
        headers = {"Authorization": f"Bearer {key}"}
        http = TestClient(Gate(app, keys), raise_server_exceptions=False, headers=headers)
        return http.request(method, path, **options).status_code

    return call


def test_a_call_is_an_event(keys: KeyRing, call: Callable[..., int]) -> None:
    """The key's id, the path, the method, the status and the role are there when the caller has the answer."""
    call("operator", "POST", "/api/v1/periods/2026-11/close")
    (event,) = calls(keys)

    assert keys.list()[0].key_id == event.actor
    assert "/api/v1/periods/2026-11/close" == event.subject
    assert {"method": "POST", "status": 200, "role": "operator"} == event.document


def test_refused_calls_of_good_keys_are_events_too(keys: KeyRing, call: Callable[..., int]) -> None:
    """Who tries what its role may not do is written down with the refusal."""
    call("application", "GET", "/api/v1/credit")
    call("member", "GET", "/api/v1/receipts/x")
    call("auditor", "DELETE", "/api/v1/keys/x")

    assert [
        ("/api/v1/credit", {"method": "GET", "status": 403, "role": "application"}),
        ("/api/v1/receipts/x", {"method": "GET", "status": 403, "role": "member"}),
        ("/api/v1/keys/x", {"method": "DELETE", "status": 403, "role": "auditor"}),
    ] == [(event.subject, event.document) for event in calls(keys)]


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
        task = asyncio.create_task(Gate(hangs, keys)(scope, None, None))  # type: ignore[arg-type]
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
    http = TestClient(Gate(answers, keys), headers=headers)
    with away(keys.database, "events"):
        assert [200, 403] == [http.get("/api/v1/credit").status_code, http.delete("/api/v1/credit").status_code]

    assert [] == calls(keys)
    unrecorded = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert 2 == len(unrecorded)
    assert keys.list()[0].key_id in caplog.text
    assert presented.split("_", 2)[2] not in caplog.text
