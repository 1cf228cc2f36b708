"""A stream is answered at once and keeps alive while nothing comes; what fails later is an event of it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.replica.messages import Failed
from deployment.retention.replays import Replays
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.waiting import PATIENCE_S, until

ROUTES = {"chat/completions": {"messages": [{"role": "user", "content": "hello"}]}, "completions": {"prompt": "hello"}}
SILENCE_S = 0.1


@pytest.fixture
def app(engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, replays: Replays) -> FastAPI:
    """The HTTP surface over replicas that admit, with a short silence."""
    engine.admits = True
    return build_app(engine, Books(ledger, keys), replays, default_max_tokens=64, keep_alive_s=SILENCE_S)


@pytest.fixture
def stream(address: str, application_key: str) -> Callable[..., Any]:
    """A function that asks a route for a stream."""

    @contextmanager
    def ask(route: str, **changes: Any) -> Iterator[httpx.Response]:
        body = {"model": CARD.name, "stream": True, **ROUTES[route], **changes}
        headers = {"Authorization": f"Bearer {application_key}"}
        with httpx.stream("POST", f"{address}/v1/{route}", json=body, headers=headers, timeout=PATIENCE_S) as got:
            yield got

    return ask


def _events(got: httpx.Response) -> list[str]:
    return [block for block in got.read().decode().split("\n\n") if block]


@pytest.mark.parametrize("route", ROUTES)
def test_headers_and_a_first_line_come_at_once(stream: Any, engine: ScriptedEngine, route: str) -> None:
    """A stream whose first token does not come for minutes has its headers and first line before."""
    engine.pause_s = 2.0 * PATIENCE_S
    with stream(route) as got:
        assert (200, "text/event-stream; charset=utf-8") == (got.status_code, got.headers["content-type"])
        next(got.iter_text())


@pytest.mark.parametrize("route", ROUTES)
def test_silence_is_filled_with_comments(stream: Any, engine: ScriptedEngine, route: str) -> None:
    """Before the first token and between others there are comment lines, and the text is whole."""
    engine.pause_s = 5 * SILENCE_S
    with stream(route) as got:
        events = _events(got)

    comments = [event for event in events if event.startswith(":")]
    assert {": keep-alive"} == set(comments)
    assert 4 <= len(comments)
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "Grüß Gott" == "".join(each.get("text") or each.get("delta", {}).get("content") or "" for each in choices)
    assert "data: [DONE]" == events[-1]


@pytest.mark.parametrize("route", ROUTES)
def test_whatever_ends_a_line_of_text_ends_no_event(stream: Any, engine: ScriptedEngine, route: str) -> None:
    """Clients that split lines as Python does read each event whole, and the text is the text."""
    engine.pieces = tuple("one\ntwo\r\nthree\x0b\x0c\x1c\x1d\x1e\x85four\u2028five\u2029")
    with stream(route) as got:
        lines = [line.removeprefix("data: ") for line in got.iter_lines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]

    assert "".join(engine.pieces) == "".join(
        each.get("text") or each.get("delta", {}).get("content") or "" for each in choices
    )


@pytest.mark.parametrize("route", ROUTES)
def test_a_failure_after_admission_is_an_event(stream: Any, engine: ScriptedEngine, route: str) -> None:
    """What fails before the first token, but after the headers, comes in OpenAI's shape, and nothing after it."""
    engine.pieces, engine.pause_s = ("",), 2 * SILENCE_S
    engine.failure = Failed(500, "it failed", "response_failed", hopeless=True)
    with stream(route) as got:
        assert 200 == got.status_code
        last = _events(got)[-1]

    expected = {"message": "it failed", "type": "server_error", "param": None, "code": "response_failed"}
    assert {"error": expected} == json.loads(last.removeprefix("data: "))


@pytest.mark.parametrize(
    ("failure", "retries"),
    [
        (Failed(400, "too long", "context_length_exceeded", "messages"), None),
        (Failed(429, "full", "overloaded", retry_after_s=1), None),
        (Failed(500, "it failed", "response_failed", hopeless=True), "false"),
    ],
)
def test_a_refusal_before_admission_is_a_status(
    stream: Any, engine: ScriptedEngine, failure: Failed, retries: str | None
) -> None:
    """What is known before anything was sent keeps its own status, and says where asking again is of no use."""
    engine.admits, engine.pieces, engine.failure = False, ("",), failure
    with stream("chat/completions") as got:
        error = json.loads(got.read())["error"]

    assert (failure.status, failure.code, retries) == (
        got.status_code,
        error["code"],
        got.headers.get("x-should-retry"),
    )


def test_who_leaves_in_the_silence_is_noticed(stream: Any, engine: ScriptedEngine) -> None:
    """A caller that goes away before the first token lets its job go."""
    engine.pause_s = 2.0 * PATIENCE_S
    with stream("chat/completions") as got:
        next(got.iter_text())
    until(lambda: engine.left)


def test_the_official_client_reads_through_the_comments(
    address: str, application_key: str, engine: ScriptedEngine
) -> None:
    """`openai` accumulates a silent stream as any other, and raises what fails in it."""
    engine.pause_s = 3 * SILENCE_S
    with openai.OpenAI(base_url=f"{address}/v1", api_key=application_key, max_retries=0) as client:
        messages: Any = ROUTES["chat/completions"]["messages"]
        with client.chat.completions.stream(model=CARD.name, messages=messages) as made:
            assert "Grüß Gott" == made.get_final_completion().choices[0].message.content
        texts = client.completions.create(model=CARD.name, prompt="hello", stream=True)
        assert "Grüß Gott" == "".join(choice.text for chunk in texts for choice in chunk.choices)
        engine.pieces, engine.failure = ("",), Failed(500, "it failed", "response_failed")
        with pytest.raises(openai.APIError, match="it failed"):
            list(client.chat.completions.create(model=CARD.name, messages=messages, stream=True))
