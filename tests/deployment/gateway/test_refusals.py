"""What applications get from the OpenAI routes when something is wrong: OpenAI's error shape, and nothing booked."""

import json
import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.replica.messages import Failed
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.gateway.test_routes import CHAT, ROUTES, TEXT, events

TOOL = {"type": "function", "function": {"name": "f"}}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]

BAD_CHAT: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 101}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_completion_tokens": 10**30}, "max_completion_tokens"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"seed": 1.5}, "seed"),
    ({"seed": 2**64}, "seed"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop.0"),
    ({"stream": "yes"}, "stream"),
    ({"attribution": "all"}, "attribution"),
    ({"n": 0}, "n"),
    ({"n": 9}, "n"),
    ({"n": True}, "n"),
    ({"tools": [TOOL]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"logit_bias": {"one": 5}}, "logit_bias"),
    ({"logit_bias": {"-1": 5}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": [5]}, "logit_bias"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": -2.5}, "frequency_penalty"),
    ({"frequency_penalty": "0"}, "frequency_penalty"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": 1.5}, "min_p"),
    ({"repetition_penalty": 1.1}, "repetition_penalty"),
    ({"best_of": 2}, "best_of"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"max_token": 5}, "max_token"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": IMAGE}, "messages.0.content"),
    ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [TOOL]}]}, "messages"),
]


def error_of(response: Any, status: int) -> dict[str, Any]:
    """The error of a refusal, once its status and shape are as they should be."""
    assert status == response.status_code, response.text
    (name,) = response.json()
    error: dict[str, Any] = response.json()[name]
    assert "error" == name
    assert {"message", "type", "param", "code"} == error.keys()
    assert isinstance(error["message"], str) and error["message"]
    return error


@pytest.mark.parametrize(("change", "param"), BAD_CHAT, ids=lambda value: str(value)[:40])
def test_bad_parameter_is_named(
    application: TestClient, engine: ScriptedEngine, change: dict[str, Any], param: str
) -> None:
    """A parameter that is out of range, unknown, or not supported is refused with 400, by name, before any work."""
    error = error_of(application.post("/v1/chat/completions", json=CHAT | change), 400)

    assert (error["param"] or "").startswith(param)
    assert re.search(rf"(?<!\w){param.split('.', maxsplit=1)[0]}(?!\w)", error["message"]), "the message names it too"
    assert "invalid_request_error" == error["type"]
    assert param.split(".", maxsplit=1)[0] in error["message"]
    assert [] == engine.jobs


@pytest.mark.parametrize(
    "prompt", ["", [], ["a", "b"], [""], [[]], [1, "a"], [True], [-1], [2**31], [[1], [2]], None, 5]
)
def test_only_one_text_is_a_prompt(application: TestClient, engine: ScriptedEngine, prompt: Any) -> None:
    """Text completions continue one non-empty string, or the token ids of one."""
    assert "prompt" == error_of(application.post("/v1/completions", json=TEXT | {"prompt": prompt}), 400)["param"]
    assert [] == engine.jobs


@pytest.mark.parametrize(("route", "missing"), [(route, name) for route, body in ROUTES.items() for name in body])
def test_missing_field_is_named(application: TestClient, route: str, missing: str) -> None:
    """A field that is needed and not there is named."""
    asked = {name: value for name, value in ROUTES[route].items() if name != missing}

    error = error_of(application.post(route, json=asked), 400)
    assert (missing, "missing_required_parameter") == (error["param"], error["code"])


@pytest.mark.parametrize(
    "body", ["{", "", "[1]", '"x"', "null", '{"model": NaN}', "\ud800".encode("utf-8", "surrogatepass")]
)
def test_body_that_is_no_json_object_is_refused(application: TestClient, body: str | bytes) -> None:
    """Malformed JSON, and JSON that is no object, get 400 in OpenAI's shape."""
    headers = {"Content-Type": "application/json"}
    error_of(application.post("/v1/chat/completions", content=body, headers=headers), 400)


@pytest.mark.parametrize("declared", [True, False])
def test_large_body_is_refused(application: TestClient, declared: bool) -> None:
    """A body above a mebibyte is refused with 413 in OpenAI's shape, whether or not its length is declared."""
    body = json.dumps(TEXT | {"prompt": "x" * 2**20}).encode()
    content = body if declared else iter([body[:1000], body[1000:]])
    headers = {"Content-Type": "application/json"}

    assert (
        "request_too_large"
        == error_of(application.post("/v1/completions", content=content, headers=headers), 413)["code"]
    )


@pytest.mark.parametrize("route", ROUTES)
def test_unknown_model_is_named(application: TestClient, engine: ScriptedEngine, route: str) -> None:
    """A model that is not served is 404 `model_not_found`, and the one that is served is named."""
    error = error_of(application.post(route, json=ROUTES[route] | {"model": "gpt-9"}), 404)

    assert ("model", "model_not_found") == (error["param"], error["code"])
    assert "gpt-9" in error["message"] and CARD.name in error["message"]
    assert [] == engine.jobs
    assert "model_not_found" == error_of(application.get("/v1/models/gpt-9"), 404)["code"]


def test_unknown_route_and_method_have_the_same_shape(application: TestClient) -> None:
    """What is not there is refused in OpenAI's shape too."""
    assert "unknown_route" == error_of(application.post("/v1/embeddings", json={}), 404)["code"]
    assert "method_not_allowed" == error_of(application.get("/v1/chat/completions"), 405)["code"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
def test_full_queue_is_429_with_retry_after(
    application: TestClient, engine: ScriptedEngine, route: str, stream: bool
) -> None:
    """A refusal by the replica has its own status and Retry-After, also where a stream was asked for."""
    engine.pieces, engine.failure = ("x",), Failed(429, "all places are taken", "overloaded", retry_after_s=1)
    response = application.post(route, json=ROUTES[route] | {"stream": stream})

    assert ("rate_limit_error", "overloaded") == tuple(error_of(response, 429)[name] for name in ("type", "code"))
    assert "1" == response.headers["retry-after"]


def test_prompt_that_the_replica_refuses_is_400(application: TestClient, engine: ScriptedEngine) -> None:
    """A prompt longer than the context is the caller's mistake, and named."""
    engine.pieces, engine.failure = ("x",), Failed(400, "too long", "context_length_exceeded", "messages")

    error = error_of(application.post("/v1/chat/completions", json=CHAT), 400)
    assert ("messages", "context_length_exceeded") == (error["param"], error["code"])


def test_failed_attribution_withholds_the_whole_text(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """Where nothing could be booked, an answer that is not streamed gives nothing of the text away."""
    engine.failure = Failed(500, "the response could not be attributed", "attribution_failed")
    response = application.post("/v1/chat/completions", json=CHAT)

    assert "attribution_failed" == error_of(response, 500)["code"]
    assert "Grüß" not in response.text
    assert 0 == ledger.last_sequence()


def test_failure_in_mid_stream_is_an_error_event(application: TestClient, engine: ScriptedEngine) -> None:
    """A stream that fails after it began ends in an error event: no finish chunk, no `[DONE]`, no held-back text."""
    engine.failure = Failed(500, "the response could not be attributed", "attribution_failed")
    response = application.post("/v1/chat/completions", json=CHAT | {"stream": True})

    assert 200 == response.status_code
    *chunks, last = events(response.text)
    assert "attribution_failed" == last["error"]["code"]
    assert {"message", "type", "param", "code"} == last["error"].keys()
    assert "Gott" not in response.text
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


def test_absent_replica_is_503(application: TestClient, anonymous: TestClient, engine: ScriptedEngine) -> None:
    """While no replica answers, health and completions say so with 503 and Retry-After."""
    assert {"status": "ok", "parts": {"model": "ok"}} == anonymous.get("/health").json()
    engine.down = True

    assert "engine_unavailable" == error_of(application.post("/v1/chat/completions", json=CHAT), 503)["code"]
    assert "5" == anonymous.get("/health").headers["retry-after"]


def test_unforeseen_failure_is_500_without_its_text(app: FastAPI, application: TestClient) -> None:
    """A bug is answered in OpenAI's shape, with a request id, and its message stays in the log."""

    @app.get("/v1/broken")
    def broken() -> None:
        raise ZeroDivisionError("secret")

    response = application.get("/v1/broken")
    assert "internal_error" == error_of(response, 500)["code"]
    assert response.headers["x-request-id"]
    assert "secret" not in response.text
