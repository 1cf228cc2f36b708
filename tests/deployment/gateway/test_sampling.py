"""How an application asks for tokens to be chosen, for their log-probabilities, and for several responses at once."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from attribution import records
from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.gateway.choices import Told, events_of_all, jobs_of
from deployment.replica.messages import Admitted, Delta, Event, Failed, Job
from deployment.retention.replays import Replays
from deployment.schemas.openai_requests import MOST_TOP_LOGPROBS, ChatRequest, CompletionRequest
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.gateway.test_routes import CHAT, ROUTES, TEXT, events
from tests.waiting import PATIENCE_S, until

ASKED = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "logit_bias": {"17": -100, "3": 2.5},
}
FULL = Failed(429, "all places are taken", "overloaded", retry_after_s=7)


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_asked_of_the_choice_reaches_the_engine(
    application: TestClient, engine: ScriptedEngine, route: str
) -> None:
    """Every way to sample, on both routes; null, and what asks for nothing, are the defaults."""
    nothing = {**dict.fromkeys(ASKED), "n": None, "top_k": -1}
    for body in (ASKED, nothing):
        assert 200 == application.post(route, json=ROUTES[route] | body).status_code

    asked, silent = ({name: getattr(job, name) for name in ASKED} for job in engine.jobs)
    assert ASKED | {"logit_bias": {17: -100.0, 3: 2.5}} == asked
    assert 0 == sum(silent[name] for name in ("top_k", "min_p", "frequency_penalty", "presence_penalty"))
    assert ({}, 1.0, 1.0) == (silent["logit_bias"], silent["temperature"], silent["top_p"])


def test_as_many_likely_tokens_may_be_asked_for_as_the_decoder_tells() -> None:
    """The service and the model agree on the most; the service does not load the model's code for it."""
    assert records.MOST_TOP_LOGPROBS == MOST_TOP_LOGPROBS


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_chat_have_openais_shape(application: TestClient, stream: bool) -> None:
    """Each token with its bytes and the likeliest at its place, beside the text that it begins."""
    asked = CHAT | {"logprobs": True, "top_logprobs": 2, "stream": stream}
    answer = application.post("/v1/chat/completions", json=asked)
    if stream:
        choices = [body["choices"][0] for body in events(answer.text)[:-1]]
        told = [each for choice in choices for each in (choice["logprobs"] or {"content": []})["content"]]
        assert all(bool(choice["delta"].get("content")) == bool(choice["logprobs"]) for choice in choices)
    else:
        (choice,) = answer.json()["choices"]
        assert {"content", "refusal"} == choice["logprobs"].keys()
        told = choice["logprobs"]["content"]

    assert ["Grüß", " ", "Gott"] == [each["token"] for each in told]
    likely = {"token": "Grüß", "logprob": -0.5, "bytes": list("Grüß".encode())}
    exclaimed = {"token": "!", "logprob": -2.0, "bytes": [33]}
    assert {**likely, "top_logprobs": [likely, exclaimed]} == told[0]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_texts_have_openais_older_shape(application: TestClient, stream: bool) -> None:
    """Four lists, places in characters of the answer; without likely tokens the third is null."""
    answer = application.post("/v1/completions", json=TEXT | {"logprobs": 1, "stream": stream})
    bodies = events(answer.text)[:-1] if stream else [answer.json()]
    told = [body["choices"][0]["logprobs"] for body in bodies if body["choices"][0]["logprobs"]]
    joined = {name: [each for part in told for each in part[name]] for name in told[0]}
    assert {
        "tokens": ["Grüß", " ", "Gott"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{"Grüß": -0.5}, {" ": -0.5}, {"Gott": -0.5}],
        "text_offset": [0, 4, 5],
    } == joined

    silent = application.post("/v1/completions", json=TEXT | {"logprobs": 0}).json()["choices"][0]["logprobs"]
    assert (3, None) == (len(silent["tokens"]), silent["top_logprobs"])


def test_only_who_asks_is_told_log_probabilities(application: TestClient, engine: ScriptedEngine) -> None:
    """False, null and nothing are no question; the engine is not asked either."""
    for asked in ({}, {"logprobs": False}, {"logprobs": None}, {"logprobs": False, "top_logprobs": 0}):
        body = application.post("/v1/chat/completions", json=CHAT | asked).json()
        assert body["choices"][0]["logprobs"] is None
    assert [None] * 4 == [job.top_logprobs for job in engine.jobs]


@pytest.mark.parametrize("route", ROUTES)
def test_several_responses_are_choices_with_a_receipt_each(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger, route: str
) -> None:
    """Ids, seeds and receipts of their own; usage counts the prompt once and the responses together."""
    body = application.post(route, json=ROUTES[route] | {"n": 3, "seed": 2**63 - 2, "attribution": True}).json()

    assert [0, 1, 2] == [choice["index"] for choice in body["choices"]]
    assert {"Grüß Gott"} == {choice.get("text") or choice["message"]["content"] for choice in body["choices"]}
    names = [body["id"], f"{body['id']}-1", f"{body['id']}-2"]
    assert names == [job.response_id for job in engine.jobs]
    assert [2**63 - 2, 2**63 - 1, -(2**63)] == [job.seed for job in engine.jobs]
    usage = body["usage"]
    assert (5, 9, 14) == tuple(usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    told = usage["attribution"]["choices"]
    assert [(n, name) for n, name in enumerate(names)] == [(each["index"], each["id"]) for each in told]
    receipts = [ledger.receipt(name) for name in names]
    assert [each["receipt_id"] for each in told] == [receipt.payload_sha256 for receipt in receipts if receipt]
    for name in names:
        assert 200 == application.get(f"/v1/attributions/{name}").status_code


@pytest.mark.parametrize("route", ROUTES)
def test_several_responses_are_streamed_side_by_side(application: TestClient, route: str) -> None:
    """Chunks bear the index of their choice; each has one finish reason; usage comes once, and then the end."""
    asked = ROUTES[route] | {"n": 3, "stream": True, "stream_options": {"include_usage": True}}
    *bodies, usage, done = events(application.post(route, json=asked).text)
    texts, reasons = ["", "", ""], [0, 0, 0]
    for body in bodies:
        (choice,) = body["choices"]
        texts[choice["index"]] += choice.get("text") or choice.get("delta", {}).get("content") or ""
        reasons[choice["index"]] += choice["finish_reason"] == "stop"

    assert (["Grüß Gott"] * 3, [1, 1, 1], "[DONE]") == (texts, reasons, done)
    assert ([], 9) == (usage["choices"], usage["usage"]["completion_tokens"])


def test_per_token_attribution_of_several_is_with_its_choice(application: TestClient) -> None:
    """Each message has its own tokens."""
    body = application.post("/v1/chat/completions", json=CHAT | {"n": 2, "attribution": "tokens"}).json()
    assert [[0, 1, 2]] * 2 == [
        [token["index"] for token in choice["message"]["attribution"]["content"]] for choice in body["choices"]
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_one_of_several_that_is_refused_refuses_all(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger, stream: bool
) -> None:
    """The request gets the refusal's own status, also as a stream, and the others are let go."""
    engine.admits, engine.failures, engine.pause_s = True, {1: FULL}, 0.3
    answer = application.post("/v1/chat/completions", json=CHAT | {"n": 3, "stream": stream})

    assert (429, "overloaded", "7") == (
        answer.status_code,
        answer.json()["error"]["code"],
        answer.headers["retry-after"],
    )
    assert "x-should-retry" not in answer.headers
    assert (2, 0) == (len(engine.left), ledger.tokens())


def test_one_of_several_that_fails_late_tells_nobody_to_ask_again(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """Tokens of the others are booked by then: the failure says so, whoever's it is."""
    engine.failure = Failed(500, "it failed", "response_failed", credited=True)
    answer = application.post("/v1/chat/completions", json=CHAT | {"n": 2})

    assert (500, "false") == (answer.status_code, answer.headers["x-should-retry"])
    assert ledger.tokens() >= 2


def test_who_leaves_lets_all_responses_go(address: str, application_key: str, engine: ScriptedEngine) -> None:
    """A stream of four that is closed cancels four jobs."""
    engine.pause_s = 2.0 * PATIENCE_S
    headers = {"Authorization": f"Bearer {application_key}"}
    body = CHAT | {"n": 4, "stream": True}
    engine.admits = True
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_S) as got:
        next(got.iter_text())
    until(lambda: len(engine.left) == 4)


@pytest.mark.parametrize("stream", [False, True])
def test_several_are_given_again_under_their_key(application: TestClient, engine: ScriptedEngine, stream: bool) -> None:
    """The same answer, with every choice and its log-probabilities, and no further job."""
    asked = CHAT | {"n": 2, "logprobs": True, "top_logprobs": 1, "stream": stream, "attribution": "tokens"}
    headers = {"Idempotency-Key": "again"}
    first, again = (application.post("/v1/chat/completions", json=asked, headers=headers) for _ in range(2))

    assert "true" == again.headers["idempotency-replayed"]
    assert 2 == len(engine.jobs)
    if stream:
        by_choice = [
            [[body["choices"] for body in events(answer.text)[:-2] if body["choices"][0]["index"] == n] for n in (0, 1)]
            for answer in (first, again)
        ]
        assert by_choice[0] == by_choice[1]
    else:
        assert first.json() == again.json()


def test_several_of_which_one_failed_may_be_asked_for_again(application: TestClient, engine: ScriptedEngine) -> None:
    """A key under which nothing was made whole is free for another attempt."""
    headers = {"Idempotency-Key": "again"}
    engine.failures, engine.pause_s = {1: FULL}, 0.3
    assert 429 == application.post("/v1/completions", json=TEXT | {"n": 2}, headers=headers).status_code
    engine.failures = {}
    answer = application.post("/v1/completions", json=TEXT | {"n": 2}, headers=headers)

    assert (200, 2) == (answer.status_code, len(answer.json()["choices"]))


def test_several_of_which_the_first_was_booked_are_not_made_twice(
    application: TestClient, engine: ScriptedEngine
) -> None:
    """The key stands for the first one's receipt: asked again, it says that this was credited, and makes no other."""
    headers = {"Idempotency-Key": "again"}
    body = TEXT | {"n": 2}
    original = engine.generate

    async def generate(job: Job) -> AsyncGenerator[Event, None]:
        if job.response_id.endswith("-1"):
            await asyncio.sleep(0.5)
            yield Failed(500, "it failed", "response_failed")
            return
        async for event in original(job):
            yield event

    engine.generate = generate  # type: ignore[method-assign]
    assert 500 == application.post("/v1/completions", json=body, headers=headers).status_code
    again = application.post("/v1/completions", json=body, headers=headers)
    assert (409, "idempotency_expired") == (again.status_code, again.json()["error"]["code"])


def test_limits_count_every_response(
    engine: ScriptedEngine, keys: KeyRing, call_as: Callable[[str | None], TestClient]
) -> None:
    """A budget must cover all of them, and all of them are under way."""
    few = call_as(keys.create("application", "few", actor="test", token_budget=100))
    narrow = call_as(keys.create("application", "narrow", actor="test", concurrency=2))
    refused = few.post("/v1/completions", json=TEXT | {"n": 3, "max_tokens": 40})
    wide = narrow.post("/v1/completions", json=TEXT | {"n": 3})

    assert (429, "insufficient_quota") == (refused.status_code, refused.json()["error"]["code"])
    assert (400, "n") == (wide.status_code, wide.json()["error"]["param"])
    assert [] == engine.jobs
    assert 200 == narrow.post("/v1/completions", json=TEXT | {"n": 2}).status_code


def test_too_many_under_way_are_told_when_to_come_back(
    app: FastAPI, engine: ScriptedEngine, keys: KeyRing, call_as: Callable[[str | None], TestClient]
) -> None:
    """A key that may have one response under way gets 429 for a second, with a time to come back, and then another."""
    engine.pause_s = 0.2
    client = call_as(keys.create("application", "one", actor="test", concurrency=1))

    async def two() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=client.headers) as asks:
            return await asyncio.gather(*(asks.post("/v1/completions", json=TEXT) for _ in range(2)))

    by_status = {answer.status_code: answer for answer in asyncio.run(two())}
    assert {200, 429} == by_status.keys()
    assert "concurrency_limit_exceeded" == by_status[429].json()["error"]["code"]
    assert 1 <= int(by_status[429].headers["retry-after"]) <= 60
    assert 200 == client.post("/v1/completions", json=TEXT).status_code


def test_a_request_is_known_by_what_the_first_version_understood_of_it() -> None:
    """Fields that came later count only where they ask for something, so that keys of before stand for the same."""
    later = {"top_k", "min_p", "frequency_penalty", "presence_penalty", "logit_bias", "n", "logprobs", "top_logprobs"}
    for kind, body in ((ChatRequest, CHAT), (CompletionRequest, TEXT)):
        silent, neutral = (kind.model_validate(body | asked).understood for asked in ({}, {"n": 1, "logit_bias": {}}))
        asking = kind.model_validate(body | {"n": 2, "min_p": 0.1}).understood
        assert silent == neutral
        assert not later & silent.keys()
        assert {"n": 2, "min_p": 0.1} == {name: asking[name] for name in later & asking.keys()}
        json.dumps(silent)


async def _told(*events: Event, pause_s: float = 0.0) -> AsyncGenerator[Event, None]:
    for event in events:
        await asyncio.sleep(pause_s)
        yield event


def test_nothing_is_told_before_all_are_admitted_and_admission_once() -> None:
    """Text of a quick one waits for a slow one's admission."""

    async def collect() -> list[Told]:
        quick, slow = _told(Admitted(), Delta("a")), _told(Admitted(), Delta("b"), pause_s=0.1)
        return [told async for told in events_of_all([quick, slow])]

    assert [Told(0, Admitted()), Told(0, Delta("a")), Told(1, Delta("b"))] == asyncio.run(collect())


def test_jobs_of_one_request_differ_in_id_and_seed_alone() -> None:
    """Without a seed they have none; the first is the job itself."""
    job = Job("cmpl-1", "a", 1, "hello", None, 1.0, 1.0, None, (), token_level=False, streamed=False)
    assert [job] == jobs_of(job, 1)
    assert ["cmpl-1", "cmpl-1-1", "cmpl-1-2"] == [each.response_id for each in jobs_of(job, 3)]
    assert {None} == {each.seed for each in jobs_of(job, 3)}


def test_a_replay_of_the_first_version_is_still_given(tmp_path: Any, ledger: Ledger, keys: KeyRing) -> None:
    """A file without log-probabilities and further responses is read as one of which nobody asked for them."""
    replays = Replays(tmp_path / "replays", 60.0)
    app = build_app(ScriptedEngine(ledger), Books(ledger, keys), replays, default_max_tokens=64)
    headers = {"Authorization": f"Bearer {keys.create('application', 'shop', actor='test')}", "Idempotency-Key": "k"}
    with TestClient(app, headers=headers) as client:
        first = client.post("/v1/completions", json=TEXT | {"model": CARD.name})
        (path,) = (tmp_path / "replays").glob("*.json")
        document = json.loads(path.read_text())
        for name in ("logprobs", "others"):
            del document[name]
        del document["end"]["logprobs"]
        path.write_text(json.dumps(document))
        again = client.post("/v1/completions", json=TEXT | {"model": CARD.name})

    assert first.json() == again.json()
    assert "true" == again.headers["idempotency-replayed"]
