"""What applications get from the OpenAI routes when all is well."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.outages import away

CHAT = {"model": CARD.name, "messages": [{"role": "user", "content": "hello"}]}
TEXT = {"model": CARD.name, "prompt": "hello"}
ROUTES = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT}


def events(body: str) -> list[Any]:
    """The documents of a stream of server-sent events; `[DONE]` as it is."""
    lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_chat_completion_has_openais_shape(application: TestClient) -> None:
    """A chat completion is OpenAI's object, and says nothing of attribution unless asked."""
    body = application.post("/v1/chat/completions", json=CHAT).json()

    assert re.fullmatch(r"chatcmpl-[0-9a-f]{32}", body["id"])
    assert "chat.completion" == body["object"]
    assert CARD.name == body["model"]
    message = {"role": "assistant", "content": "Grüß Gott", "refusal": None}
    assert [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}] == body["choices"]
    assert {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8} == body["usage"]


def test_text_completion_has_openais_shape(application: TestClient) -> None:
    """A text completion is OpenAI's object."""
    body = application.post("/v1/completions", json=TEXT).json()

    assert re.fullmatch(r"cmpl-[0-9a-f]{32}", body["id"])
    assert "text_completion" == body["object"]
    assert [{"index": 0, "text": "Grüß Gott", "logprobs": None, "finish_reason": "stop"}] == body["choices"]


@pytest.mark.parametrize("asked", [True, "summary"])
def test_summary_travels_in_usage(application: TestClient, ledger: Ledger, asked: bool | str) -> None:
    """`attribution: true` means the summary: shares and the booked credit, and no tokens."""
    body = application.post("/v1/chat/completions", json=CHAT | {"attribution": asked}).json()

    attribution = body["usage"]["attribution"]
    receipt = ledger.receipt(body["id"])
    assert receipt is not None
    assert receipt.payload_sha256 == attribution["receipt_id"]
    assert {account: str(amount) for account, amount in receipt.amounts.items()} == attribution["credit"]
    assert 3_000_000 == sum(map(int, attribution["credit"].values()))
    assert {"clinic": 0.5, "bank": 0.25} == attribution["shares"]
    assert (0.25, "credit", 0.001) == (
        attribution["base_share"],
        attribution["method"],
        attribution["completeness_error"],
    )
    assert "attribution" not in body["choices"][0]["message"]


def test_tokens_travel_beside_the_text(application: TestClient) -> None:
    """`attribution: "tokens"` gives one entry for each token, in the message or in the choice of a text completion."""
    chat = application.post("/v1/chat/completions", json=CHAT | {"attribution": "tokens"}).json()
    text = application.post("/v1/completions", json=TEXT | {"attribution": "tokens"}).json()

    content = chat["choices"][0]["message"]["attribution"]["content"]
    first = {
        "index": 0,
        "token": "Grüß",
        "token_id": 7,
        "bytes": list("Grüß".encode()),
        "clients": [
            {"client": "clinic", "share": 0.5, "score": 1.0},
            {"client": "bank", "share": 0.25, "score": 0.5},
        ],
        "base_share": 0.25,
    }
    assert first == content[0]
    assert [0, 1, 2] == [entry["index"] for entry in content]
    assert content == text["choices"][0]["attribution"]["content"]


def test_chat_stream_is_text_then_attribution_then_finish_then_usage(application: TestClient) -> None:
    """Text streams at once; attribution comes just before the finish chunk, usage after it, `[DONE]` last."""
    asked = CHAT | {"stream": True, "attribution": "tokens"}
    response = application.post("/v1/chat/completions", json=asked)

    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(response.text)
    assert "[DONE]" == done
    assert {"chat.completion.chunk"} == {chunk["object"] for chunk in chunks}
    assert 1 == len({chunk["id"] for chunk in chunks})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    text = [{"content": piece} for piece in ("Grüß", " ", "Gott")]
    assert [{"role": "assistant", "content": ""}, *text] == deltas[:4]
    assert [0, 1, 2] == [entry["index"] for entry in deltas[4]["attribution"]["content"]]
    assert {} == deltas[5]
    assert [None] * 5 + ["stop"] == [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert [] == chunks[-1]["choices"]
    assert 3_000_000 == sum(map(int, chunks[-1]["usage"]["attribution"]["credit"].values()))


def test_long_attribution_is_cut_into_chunks(application: TestClient, engine: ScriptedEngine) -> None:
    """The per-token entries of a long stream come in several chunks whose indices run on."""
    engine.pieces = ("x",) * 100
    asked = TEXT | {"stream": True, "attribution": "tokens"}
    chunks = events(application.post("/v1/completions", json=asked).text)[:-1]

    parts = [
        chunk["choices"][0]["attribution"]["content"] for chunk in chunks[:-1] if "attribution" in chunk["choices"][0]
    ]
    assert [64, 36] == [len(part) for part in parts]
    assert list(range(100)) == [entry["index"] for part in parts for entry in part]


@pytest.mark.parametrize("include", [True, False])
def test_usage_chunk_comes_when_asked_for(application: TestClient, include: bool) -> None:
    """Without attribution a stream has a usage chunk exactly when `stream_options.include_usage` says so."""
    asked = TEXT | {"stream": True, "stream_options": {"include_usage": include}}
    chunks = events(application.post("/v1/completions", json=asked).text)[:-1]

    assert include == ("usage" in chunks[-1])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_finished_response_is_booked_to_the_key_that_asked(
    application: TestClient, ledger: Ledger, keys: KeyRing, route: str, stream: bool
) -> None:
    """Whoever saw the end of a response finds its receipt in the ledger, under the id of its key."""
    response = application.post(route, json=ROUTES[route] | {"stream": stream})
    response_id = events(response.text)[0]["id"] if stream else response.json()["id"]

    receipt = ledger.receipt(response_id)
    assert receipt is not None
    assert keys.list()[0].key_id == receipt.application


def test_request_reaches_the_engine_as_it_was_asked(application: TestClient, engine: ScriptedEngine) -> None:
    """Every supported parameter arrives, `developer` as `system`, parts of text joined, `stop` as a tuple."""
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
        {"role": "assistant", "content": "hi", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "again"},
    ]
    sampling = {"max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": "\n"}
    assert 200 == application.post("/v1/chat/completions", json=CHAT | sampling | {"messages": messages}).status_code

    (job,) = engine.jobs
    roles = [(message.role, message.content) for message in job.prompt]
    assert [("system", "be brief"), ("user", "hello"), ("assistant", "hi"), ("user", "again")] == roles
    assert (9, 0.5, 0.9, 3, ("\n",), False) == (
        job.max_tokens, job.temperature, job.top_p, job.seed, job.stop, job.token_level
    )  # fmt: skip


def test_harmless_and_neutral_parameters_are_accepted(application: TestClient) -> None:
    """Parameters that change nothing, or that ask for what is done anyway, do no harm; null means the default."""
    harmless = {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}
    neutral = {"n": 1, "tools": [], "logit_bias": {}, "response_format": {"type": "text"}, "frequency_penalty": 0.0}
    null = dict.fromkeys(("temperature", "top_p", "stop", "stream", "stream_options", "max_tokens", "logprobs"))

    assert 200 == application.post("/v1/chat/completions", json=CHAT | harmless | neutral | null).status_code


def test_models_are_listed_and_found(application: TestClient) -> None:
    """The one served consortium is listed, and found by its name."""
    (listed,) = application.get("/v1/models").json()["data"]

    assert listed == application.get(f"/v1/models/{CARD.name}").json()
    assert (CARD.name, "model", ["clinic", "bank"], 128) == (
        listed["id"], listed["object"], listed["clients"], listed["context_length"]
    )  # fmt: skip


def test_attribution_can_be_asked_for_later(application: TestClient) -> None:
    """`GET /v1/attributions/{id}` gives the booked credit of a response to the key that asked for it."""
    made = application.post("/v1/completions", json=TEXT | {"attribution": True}).json()
    body = application.get(f"/v1/attributions/{made['id']}").json()

    assert made["usage"]["attribution"]["credit"] == body["credit"]
    assert made["usage"]["attribution"]["receipt_id"] == body["receipt_id"]
    assert (0.25, {"clinic": 0.5, "bank": 0.25}, "3") == (body["base_share"], body["shares"], body["tokens"])


def test_attribution_of_others_does_not_exist(application: TestClient, anonymous: TestClient, keys: KeyRing) -> None:
    """To another application's key a response is as unknown as one that never was."""
    made = application.post("/v1/completions", json=TEXT).json()
    other = {"Authorization": f"Bearer {keys.create('application', 'rival', actor='test')}"}

    theirs = anonymous.get(f"/v1/attributions/{made['id']}", headers=other)
    nobodys = anonymous.get("/v1/attributions/cmpl-none", headers=other)
    assert (404, 404) == (theirs.status_code, nobodys.status_code)
    assert theirs.json()["error"]["message"].replace(made["id"], "cmpl-none") == nobodys.json()["error"]["message"]


def test_receipt_on_its_way_is_told_from_one_that_never_was(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """What was promised and is not in the ledger yet is 202 with a time to come back; while that is away it is 503."""
    engine.books = False
    made = application.post("/v1/completions", json=TEXT).json()
    promised = application.get(f"/v1/attributions/{made['id']}")
    unknown = application.get("/v1/attributions/cmpl-none")
    with away(ledger.database, "receipts"):
        dark = application.get(f"/v1/attributions/{made['id']}")

    assert (202, {"id": made["id"], "object": "attribution.pending"}, "5") == (
        promised.status_code, promised.json(), promised.headers["retry-after"]
    )  # fmt: skip
    assert (404, None) == (unknown.status_code, unknown.headers.get("retry-after"))
    assert (503, "ledger_unavailable", "5") == (
        dark.status_code, dark.json()["error"]["code"], dark.headers["retry-after"]
    )  # fmt: skip


def test_every_answer_has_a_request_id(application: TestClient, anonymous: TestClient) -> None:
    """`x-request-id` is on success and failure alike; the caller's own is kept when it is a plain word."""
    assert application.get("/v1/models").headers["x-request-id"]
    assert anonymous.get("/v1/models").headers["x-request-id"]
    assert "mine-1" == application.get("/nowhere", headers={"x-request-id": "mine-1"}).headers["x-request-id"]
    assert "a b" != application.get("/nowhere", headers={"x-request-id": "a b"}).headers["x-request-id"]


def test_budget_counts_responses_whose_receipts_wait(
    call_as: Callable[[str], TestClient], keys: KeyRing, engine: ScriptedEngine
) -> None:
    """While nothing is booked a budget of ten tokens admits three responses of three, and no more."""
    client = call_as(keys.create("application", "shop", actor="test", token_budget=10))
    engine.books = False
    statuses = [client.post("/v1/completions", json=TEXT | {"max_tokens": 3}).status_code for _ in range(5)]

    assert [200, 200, 200, 429, 429] == statuses
