"""HTTP as clients speak it: HEAD, HTTP/1.0, other bodies, other origins, and histories that SDKs echo."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.app.proxy import proxy_middleware
from deployment.books.books import Books
from deployment.gateway.proxy_health import SHARED_S
from deployment.metrics.accept import preferred_format
from deployment.retention.replays import Replays
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.gateway.test_refusals import error_of
from tests.deployment.gateway.test_routes import CHAT, ROUTES, events
from tests.waiting import PATIENCE_S, until

JSON = {"Content-Type": "application/json"}
OPEN = "application/openmetrics-text"
PAGE = "https://app.example"


@pytest.mark.parametrize("path", ["/health", "/v1/models", f"/v1/models/{CARD.name}", "/v1/models/none", "/v1/none"])
def test_head_answers_as_get_without_a_body(application: TestClient, path: str) -> None:
    """Probes that ask with HEAD get the status and the headers of GET."""
    got, head = application.get(path), application.head(path)

    assert (got.status_code, b"") == (head.status_code, head.content)
    assert got.headers["content-length"] == head.headers["content-length"]
    assert got.headers["content-type"] == head.headers["content-type"]


def test_head_passes_the_gate_as_get_does(anonymous: TestClient, member: TestClient, engine: ScriptedEngine) -> None:
    """HEAD opens nothing that GET does not, and calls nothing that is POST alone."""
    assert [200, 401, 401] == [anonymous.head(path).status_code for path in ("/health", "/v1/models", "/api/v1/keys")]
    assert [200, 403] == [member.head(path).status_code for path in ("/api/v1/shares", "/api/v1/keys")]
    assert 405 == anonymous.head("/console/sign-out").status_code or not engine.jobs
    assert [] == engine.jobs


@pytest.fixture
def proxied(app: FastAPI) -> Iterator[tuple[str, int]]:
    """The app behind the proxy's middleware and a real server: its address."""
    with behind_proxy(app) as address:
        yield address


@contextmanager
def behind_proxy(wrapped: Any) -> Iterator[tuple[str, int]]:
    """What answers behind the proxy's middleware and a real server: its address."""
    for middleware in proxy_middleware():  # the last one is the outermost
        wrapped = middleware.cls(wrapped, *middleware.args, **middleware.kwargs)
    server = uvicorn.Server(uvicorn.Config(wrapped, host="127.0.0.1", port=0, log_level="warning", http="httptools"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started, "the server did not start"
    yield server.servers[0].sockets[0].getsockname()[:2]
    server.should_exit = True
    thread.join(10)


def saying(status: int, content_type: str, body: bytes, *, is_whole: bool = True) -> Any:
    """An app that says this to whoever asks, and fails when that is not to be whole."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", content_type.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": not is_whole})
        if not is_whole:
            raise RuntimeError("died")

    return app


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """What Serve's proxy does where the ingress died before it had answered."""


async def failure(_scope: Any, _receive: Any, _send: Any) -> None:
    """What it does where the ingress cannot be reached in a way that it does not know."""
    raise RuntimeError("secret of the inside")


@pytest.mark.parametrize(
    "inside",
    [
        nothing,
        failure,
        saying(503, "text/plain; charset=utf-8", b"Deployment is unavailable"),
        saying(500, "text/plain", b"died"),
        saying(408, "text/plain", b"Request timed out"),
        saying(404, "text/plain; charset=utf-8", b"Path '/v1' not found. Please ping"),
    ],
)
def test_where_the_service_is_gone_the_proxy_refuses_in_its_words(inside: Any) -> None:
    """Whatever Serve says or leaves unsaid is one 503 in OpenAI's shape, with when to come back and an id."""
    with behind_proxy(inside) as (host, port):
        answered = httpx.post(f"http://{host}:{port}/v1/completions", json={}, timeout=PATIENCE_S)

    assert "service_unavailable" == error_of(answered, 503)["code"]
    assert 0 < int(answered.headers["retry-after"])
    assert answered.headers["x-request-id"]
    assert b"secret" not in answered.content


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [(200, "text/plain", b"keys"), (404, "application/json", b"{}"), (503, "text/html", b"<p>"), (204, "", b"")],
)
def test_what_is_answered_passes_the_proxy_as_it_is(status: int, content_type: str, body: bytes) -> None:
    """Files in plain text, refusals in JSON, pages."""
    with behind_proxy(saying(status, content_type, body)) as (host, port):
        answered = httpx.get(f"http://{host}:{port}/console", timeout=PATIENCE_S)

    assert (status, content_type, body) == (answered.status_code, answered.headers["content-type"], answered.content)


def test_an_answer_that_breaks_off_gets_no_second_one() -> None:
    """What has begun is cut, so that a caller sees it is not whole."""
    with (
        behind_proxy(saying(200, "text/event-stream", b"data: 1", is_whole=False)) as (host, port),
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(f"http://{host}:{port}/v1/completions", timeout=PATIENCE_S)


def spoken(address: tuple[str, int], version: str, key: str, body: dict[str, Any]) -> tuple[str, bytes]:
    """The head and the body of the answer to a completion, byte by byte as they came until the server hung up."""
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode() + content)
        answered = b"".join(iter(lambda: connection.recv(65536), b""))
    told, _, rest = answered.partition(b"\r\n\r\n")
    return told.decode().lower(), rest


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_of_http_1_0_gets_no_chunks(proxied: tuple[str, int], application_key: str, stream: bool) -> None:
    """Its answers come whole with their length, streams too; a client of HTTP/1.1 gets the same in chunks."""
    body = CHAT | {"stream": stream}
    head, answered = spoken(proxied, "1.0", application_key, body)
    newer, _ = spoken(proxied, "1.1", application_key, body)

    assert " 200 " in head.splitlines()[0]
    assert "transfer-encoding" not in head and f"content-length: {len(answered)}" in head
    assert ("transfer-encoding: chunked" in newer) == stream
    if stream:
        assert "[DONE]" == events(answered.decode())[-1]
    else:
        assert "Grüß Gott" == json.loads(answered)["choices"][0]["message"]["content"]


def test_a_crowd_of_probes_asks_the_service_once(proxied: tuple[str, int], engine: ScriptedEngine) -> None:
    """Whoever asks for health within a second shares one answer, each under an id of its own; HEAD too."""
    url = f"http://{proxied[0]}:{proxied[1]}/health"
    begun = time.monotonic()
    with (
        ThreadPoolExecutor(20) as crowd,
        httpx.Client(limits=httpx.Limits(max_connections=20), timeout=PATIENCE_S) as client,
    ):
        answers = list(crowd.map(lambda n: client.head(url) if n % 5 == 0 else client.get(url), range(200)))

    assert {200} == {answer.status_code for answer in answers}
    assert 200 == len({answer.headers["x-request-id"] for answer in answers})
    assert {b"", answers[1].content} == {answer.content for answer in answers}
    assert 1 <= engine.checks <= 2 + (time.monotonic() - begun) / SHARED_S  # the crowd may take some seconds

    engine.down = True
    time.sleep(1.1)
    failed = httpx.get(url, timeout=PATIENCE_S)
    assert (503, "5") == (failed.status_code, failed.headers["retry-after"])


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, b"{}", 415, "unsupported_content_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415, "unsupported_content_type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", 415, "unsupported_content_type"),
        ({"Content-Type": "application/json; charset=latin-1"}, b"{}", 415, "unsupported_content_type"),
        ({"Content-Type": "nonsense"}, b"{}", 415, "unsupported_content_type"),
        ({}, b"{}", 415, "unsupported_content_type"),
        (JSON | {"Content-Encoding": "gzip"}, gzip.compress(b"{}", mtime=0), 415, "unsupported_content_encoding"),
        (JSON | {"Content-Encoding": "br"}, b"{}", 415, "unsupported_content_encoding"),
        (JSON, b'{"model": "\xff"}', 400, "invalid_utf8"),
        (JSON, b'{"model": "\xc3', 400, "invalid_utf8"),
        (JSON, b"[" * 100_000, 400, "invalid_json"),
        (JSON, b'{"seed": ' + b"9" * 10_000 + b"}", 400, "invalid_json"),
        (JSON, b"\x00\x00", 400, "invalid_json"),
        (JSON, b"", 400, "no_body"),
    ],
)
def test_a_body_in_another_form_is_refused_by_its_name(
    application: TestClient, engine: ScriptedEngine, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    """What is wrong with a body is said, and what would be right, before any work."""
    error = error_of(application.post("/v1/chat/completions", content=content, headers=headers), status)

    assert code == error["code"]
    assert "invalid_request_error" == error["type"]
    assert [] == engine.jobs


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=UTF-8", "application/vnd.x+json"])
def test_json_is_read_however_it_is_spelled(application: TestClient, kind: str) -> None:
    """Letters, parameters and suffixes of the media type make no difference."""
    response = application.post(
        "/v1/completions", content=json.dumps(ROUTES["/v1/completions"]), headers={"Content-Type": kind}
    )

    assert 200 == response.status_code


def test_operators_bodies_are_judged_alike(operator: TestClient) -> None:
    """The API of operators refuses other bodies by the same names, and needs none where there is nothing to say."""
    response = operator.post("/api/v1/holds", content=b"x", headers={"Content-Type": "text/csv"})

    assert "unsupported_content_type" == error_of(response, 415)["code"]
    assert "application/json" == response.headers["accept-post"]
    assert 415 != operator.post("/api/v1/log/seal").status_code


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "client", "target": "bank", "reason": "x", "why": "y"}, "why: is no field of this request"),
        ({"kind": "client", "target": "bank", "reason": "a\nb"}, "reason: must be printable text"),
    ],
)
def test_what_is_wrong_with_a_field_is_said_in_our_words(
    operator: TestClient, body: dict[str, str], message: str
) -> None:
    """Which field it is, and what would be right, without the words of a library."""
    assert error_of(operator.post("/api/v1/holds", json=body), 400)["message"].startswith(message)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"role": "user", "content": [IMAGE]}, "image_url"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}, AUDIO]}, "input_audio"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "file"),
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "tool"),
        ({"role": "function", "content": "x", "name": "f"}, "function"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, "tool_calls"),
        ({"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}}, "cache_control"),
    ],
)
def test_what_is_no_text_is_refused_by_its_name(
    application: TestClient, engine: ScriptedEngine, message: dict[str, Any], named: str
) -> None:
    """A part, a role or a field that this service cannot use is named, and so is the message it stands in."""
    asked = CHAT | {"messages": [{"role": "user", "content": "hello"}, message]}
    error = error_of(application.post("/v1/chat/completions", json=asked), 400)

    assert "unsupported_content" == error["code"]
    assert error["param"].startswith("messages.1")
    assert repr(named) in error["message"]
    assert [] == engine.jobs


@pytest.mark.parametrize(
    "extra",
    [
        {"name": "alice"},
        {"tool_calls": []},
        {"tool_calls": None, "function_call": None, "audio": None},
        {"reasoning_content": "I thought."},
        {"reasoning": "I thought.", "reasoning_details": [{"type": "x"}]},
        {"images": [], "provider_specific_fields": {}, "refusal": None, "annotations": []},
        {"id": "msg_1", "parsed": None},
    ],
    ids=str,
)
def test_a_history_that_an_sdk_echoes_is_taken(
    application: TestClient, engine: ScriptedEngine, extra: dict[str, Any]
) -> None:
    """What SDKs and peers add to an answer changes nothing when the answer comes back as history."""
    messages = [
        {"role": "user", "content": "hello", "name": "bob"},
        {"role": "assistant", "content": "hi", **extra},
        {"role": "user", "content": [{"type": "text", "text": "again"}]},
    ]

    assert 200 == application.post("/v1/chat/completions", json=CHAT | {"messages": messages}).status_code
    assert ["hello", "hi", "again"] == [message.content for message in engine.jobs[0].prompt]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("attribution", ["none", "summary", "tokens"])
def test_each_chunk_has_a_usage_where_the_last_one_counts(
    application: TestClient, route: str, attribution: str
) -> None:
    """With `include_usage` the field is null in every chunk but the last; without it no chunk has the field."""
    asked = ROUTES[route] | {"stream": True, "attribution": attribution}
    plain = events(application.post(route, json=asked).text)[:-1]
    counted = events(application.post(route, json=asked | {"stream_options": {"include_usage": True}}).text)[:-1]

    assert [None] * (len(counted) - 1) == [chunk["usage"] for chunk in counted[:-1]]
    assert counted[-1]["usage"]["total_tokens"] == 8 and counted[-1]["choices"] == []
    assert {"none"} == {attribution} or all("usage" in chunk for chunk in plain)
    assert attribution != "none" or not any("usage" in chunk for chunk in plain)


@pytest.fixture
def shared(engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, replays: Replays) -> Iterator[TestClient]:
    """The API, open to the pages of one origin, called without a key."""
    app = build_app(engine, Books(ledger, keys), replays, default_max_tokens=64, cors_origins=(PAGE,))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def preflight(client: TestClient, path: str, origin: str = PAGE) -> Any:
    """What a browser asks before a page of `origin` may send a completion with its own headers."""
    asked = "authorization, content-type, idempotency-key, x-stainless-lang"
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    return client.options(path, headers=headers)


def test_a_preflight_needs_no_key(shared: TestClient, application_key: str) -> None:
    """A browser may not send one; the call itself needs it, and its refusals can be read by the page."""
    response = preflight(shared, "/v1/chat/completions")
    refused = shared.post("/v1/chat/completions", json=CHAT, headers={"Origin": PAGE})
    made = shared.post(
        "/v1/chat/completions", json=CHAT, headers={"Origin": PAGE, "Authorization": f"Bearer {application_key}"}
    )

    assert (200, PAGE) == (response.status_code, response.headers["access-control-allow-origin"])
    assert {"authorization", "idempotency-key", "x-stainless-lang"} <= {
        name.strip().lower() for name in response.headers["access-control-allow-headers"].split(",")
    }
    assert [401, 200] == [refused.status_code, made.status_code]
    assert {PAGE} == {each.headers["access-control-allow-origin"] for each in (refused, made)}
    assert "x-request-id" in made.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in made.headers


def test_no_other_origin_is_let_in(shared: TestClient, anonymous: TestClient) -> None:
    """Neither a page that is not named, nor any page where none is, nor anybody to the console."""
    assert 400 == preflight(shared, "/v1/models", "https://evil.example").status_code
    assert (
        "access-control-allow-origin" not in shared.get("/health", headers={"Origin": "https://evil.example"}).headers
    )
    assert "access-control-allow-origin" not in preflight(shared, "/console/sign-in").headers
    assert 401 == preflight(anonymous, "/v1/models").status_code
    assert "access-control-allow-origin" not in anonymous.get("/health", headers={"Origin": PAGE}).headers


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", ""),
        ("*/*", ""),
        ("text/html", ""),
        ("application/openmetrics-text", "application/openmetrics-text"),
        ("application/openmetrics-text;q=0", ""),
        ("application/openmetrics-text; q=0.0, text/plain", "text/plain"),
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.9", "text/plain;version=0.0.4"),
        ("text/plain;q=0.5, application/openmetrics-text; version=1.0.0; Q=0.6", f"{OPEN};version=1.0.0"),
        (f"{OPEN};version=1.0.0,{OPEN};version=0.0.1;q=0.75,text/plain;q=0.5", f"{OPEN};version=1.0.0"),
        ("Text/Plain", "text/plain"),
        ("text/plain;q=x, application/openmetrics-text;q=nan", "text/plain"),
        (";,;q=1,", ""),
    ],
)  # fmt: skip
def test_the_format_with_the_highest_weight_is_preferred(accept: str, wanted: str) -> None:
    """Weights decide, the order breaks ties, and weight 0 means never."""
    assert wanted == preferred_format(accept)
