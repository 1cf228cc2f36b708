"""`Idempotency-Key`: what is asked twice is answered once, generated once and booked once."""

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi.testclient import TestClient

from deployment.access.limits import Limits
from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.errors import ConflictError, SpoolError
from deployment.gateway.idempotency import Idempotency
from deployment.gateway.request_handling import Answers
from deployment.replica.messages import Event, Failed, Job
from deployment.retention.replays import Replay, Replays
from deployment.schemas.openai_requests import CompletionRequest
from rewards.credit import Receipt
from rewards.keys.ring import KeyRing
from rewards.ledger.idempotency_claims import Claims
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, SHARES, ScriptedEngine
from tests.deployment.gateway.test_routes import CHAT, ROUTES, TEXT
from tests.deployment.outages import away
from tests.rewards.receipts import make_receipt
from tests.waiting import PATIENCE_S, until

KEY = {"Idempotency-Key": "order 66"}


class GatedEngine(ScriptedEngine):
    """One that can be stopped in the middle of a response, for as long as a test needs.

    Attributes:
        gate: open at first; while it is shut, no more of a response comes than `passing` events.
        passing: how many.
        fails_once: whether `failure` is the first job's alone.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.gate = threading.Event()
        self.gate.set()
        self.passing = 0
        self.fails_once = False

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """The same events, each once it may come."""
        if self.fails_once and self.jobs:
            self.failure = None
        told = 0
        async with aclosing(super().generate(job)) as events:
            async for event in events:
                if told >= self.passing:
                    await asyncio.to_thread(self.gate.wait, PATIENCE_S)
                told += 1
                yield event


@pytest.fixture
def engine(ledger: Ledger) -> GatedEngine:
    """The fake of the replicas."""
    return GatedEngine(ledger)


def ask(client: TestClient, route: str = "/v1/completions", headers: dict[str, str] = KEY, **changes: Any) -> Any:
    """The answer to a request under a key."""
    return client.post(route, json=ROUTES[route] | changes, headers=headers)


def receipt_of(job: Job) -> Receipt:
    """A receipt of a response that the engine made and did not book."""
    return replace(make_receipt(job.response_id, shares=SHARES), consortium=CARD.name)


def error(response: Any) -> tuple[int, str]:
    """Status and code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


def app_over(engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, folder: Path, window_s: float) -> Any:
    """Another ingress over the same ledger and folder, as after a restart."""
    return build_app(engine, Books(ledger, keys), Replays(folder, window_s), default_max_tokens=64)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
def test_repeated_request_gets_the_same_response(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger, route: str, stream: bool
) -> None:
    """The same bytes again, whole or as the same chunks, marked as a replay; nothing is generated, nothing booked."""
    first, second, third = (ask(application, route, stream=stream, attribution="tokens") for _ in range(3))

    assert [200] * 3 == [each.status_code for each in (first, second, third)]
    assert first.content == second.content == third.content
    assert first.headers["content-type"] == second.headers["content-type"]
    assert [None, "true"] == [each.headers.get("idempotency-replayed") for each in (first, second)]
    assert (1, 1) == (len(engine.jobs), ledger.last_sequence())


def test_requests_without_a_key_are_not_repeated(application: TestClient, engine: ScriptedEngine) -> None:
    """Who sends no key asks anew each time."""
    for _ in range(2):
        assert 200 == ask(application, headers={}).status_code
    assert 2 == len({job.response_id for job in engine.jobs})


def test_key_belongs_to_its_application(
    application: TestClient, call_as: Callable[[str], TestClient], keys: KeyRing, engine: ScriptedEngine
) -> None:
    """Two applications that happen to use one key get a response each."""
    other = call_as(keys.create("application", "rival", actor="test"))
    assert ask(application).json()["id"] != ask(other).json()["id"]
    assert 2 == len(engine.jobs)


@pytest.mark.parametrize("change", [{"max_tokens": 5}, {"stream": True}, {"user": "u"}, {"attribution": "tokens"}])
def test_key_of_another_request_is_422(application: TestClient, engine: ScriptedEngine, change: dict[str, Any]) -> None:
    """The same key for anything else is refused and named, also on another route; nothing is generated."""
    ask(application)
    responses = [ask(application, **change), ask(application, "/v1/chat/completions")]

    assert [(422, "idempotency_key_reused")] * 2 == [error(response) for response in responses]
    assert "Idempotency-Key" == responses[0].json()["error"]["param"]
    assert 1 == len(engine.jobs)


def test_spelling_of_a_request_does_not_matter(application: TestClient, engine: ScriptedEngine) -> None:
    """Order of fields, defaults written out and nulls are the same request."""
    first = application.post("/v1/chat/completions", json=CHAT, headers=KEY)
    spelt = {"stop": None, "temperature": 1.0} | dict(reversed(CHAT.items())) | {"stream": False, "seed": None}
    assert first.content == application.post("/v1/chat/completions", json=spelt, headers=KEY).content


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_malformed_key_is_400(application: TestClient, engine: ScriptedEngine, key: str) -> None:
    """A key is 1 to 255 printable characters; anything else is refused by name before any work."""
    response = ask(application, headers={"Idempotency-Key": key})
    assert (400, "invalid_value") == error(response)
    assert "Idempotency-Key" == response.json()["error"]["param"]
    assert [] == engine.jobs
    assert 200 == ask(application, headers={"Idempotency-Key": "x" * 255}).status_code


def test_two_keys_are_none(application: TestClient) -> None:
    """A request with two keys is refused: nobody could say which one counts."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert (400, "invalid_value") == error(application.post("/v1/completions", json=TEXT, headers=headers))


def test_of_racing_requests_one_generates(
    address: str, application_key: str, engine: GatedEngine, ledger: Ledger
) -> None:
    """Twelve at once under one key: one response, given to whoever comes late, 409 with a time to come back before."""
    engine.gate.clear()
    start = threading.Barrier(12)
    headers = KEY | {"Authorization": f"Bearer {application_key}"}

    def post() -> httpx.Response:
        return httpx.post(f"{address}/v1/completions", json=TEXT, headers=headers, timeout=PATIENCE_S)

    def race(_: int) -> httpx.Response:
        start.wait()
        return post()

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(race, number) for number in range(12)]
        until(lambda: sum(each.done() for each in asked) + len(engine.jobs) >= 12)  # told, or being made
        engine.gate.set()
    answers = [each.result() for each in asked] + [post()]
    good = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]

    assert (2, 11) == (len(good), len(refused))
    assert 1 == len({answer.json()["id"] for answer in good}) == len(engine.jobs) == ledger.last_sequence()
    assert {(409, "idempotency_in_progress")} == {error(answer) for answer in refused}
    assert {"1"} == {answer.headers["retry-after"] for answer in refused}


def test_response_under_way_is_409_here_and_elsewhere(
    address: str, application_key: str, engine: GatedEngine, ledger: Ledger, keys: KeyRing, tmp_path: Path
) -> None:
    """While a stream runs its key is taken, in this ingress and in every other one; another request stays 422."""
    engine.gate.clear()
    engine.passing = 1
    headers = KEY | {"Authorization": f"Bearer {application_key}"}
    elsewhere = TestClient(app_over(engine, ledger, keys, tmp_path / "elsewhere", 60.0), headers=headers)
    asked = TEXT | {"stream": True}
    with httpx.stream("POST", f"{address}/v1/completions", json=asked, headers=headers, timeout=PATIENCE_S) as first:
        lines = first.iter_lines()
        next(lines)
        here = httpx.post(f"{address}/v1/completions", json=asked, headers=headers, timeout=PATIENCE_S)
        there = elsewhere.post("/v1/completions", json=asked)
        other = httpx.post(f"{address}/v1/completions", json=TEXT, headers=headers, timeout=PATIENCE_S)
        engine.gate.set()
        rest = list(lines)
    again = httpx.post(f"{address}/v1/completions", json=asked, headers=headers, timeout=PATIENCE_S)

    assert [(409, "idempotency_in_progress")] * 2 == [error(here), error(there)]
    assert ["1", "5"] == [here.headers["retry-after"], there.headers["retry-after"]]
    assert (422, "idempotency_key_reused") == error(other)
    assert "data: [DONE]" in rest
    assert ("true", 1) == (again.headers["idempotency-replayed"], len(engine.jobs))


def test_response_whose_window_is_over_is_not_made_again(
    engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, application_key: str, tmp_path: Path
) -> None:
    """After the window the key says which response and receipt it stood for, and that trying again is useless."""
    headers = KEY | {"Authorization": f"Bearer {application_key}"}
    client = TestClient(app_over(engine, ledger, keys, tmp_path / "r", 0.3), headers=headers)
    made = client.post("/v1/completions", json=TEXT | {"attribution": True}).json()
    until(lambda: not list((tmp_path / "r").iterdir()))
    late = client.post("/v1/completions", json=TEXT | {"attribution": True})

    assert (409, "idempotency_expired") == error(late)
    assert "false" == late.headers["x-should-retry"]
    assert made["id"] in late.json()["error"]["message"]
    assert made["usage"]["attribution"]["receipt_id"] in late.json()["error"]["message"]
    assert 1 == len(engine.jobs)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("{"), lambda path: path.write_text("{}")])
def test_text_that_is_lost_is_not_made_again(
    application: TestClient, engine: ScriptedEngine, tmp_path: Path, harm: Callable[[Path], Any]
) -> None:
    """Where the kept text is gone or unreadable the response counts as given; it is not generated a second time."""
    ask(application)
    (kept,) = (tmp_path / "replays").iterdir()
    harm(kept)
    assert (409, "idempotency_expired") == error(ask(application))
    assert 1 == len(engine.jobs)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "failure",
    [
        Failed(429, "all places are taken", "overloaded", retry_after_s=1),
        Failed(400, "too long", "context_length_exceeded", "prompt"),
        Failed(503, "the model went away", "engine_unavailable", retry_after_s=5),
    ],
    ids=lambda failure: failure.code,
)
def test_attempt_that_came_to_nothing_may_be_made_again(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger, failure: Failed, stream: bool
) -> None:
    """A refusal before anything was delivered is followed by a new attempt, with a response of its own."""
    pieces, engine.pieces, engine.failure = engine.pieces, ("x",), failure
    assert failure.status == ask(application, stream=stream).status_code
    engine.pieces, engine.failure = pieces, None
    good = ask(application, stream=stream)

    assert (200, None) == (good.status_code, good.headers.get("idempotency-replayed"))
    assert (2, 1) == (len(engine.jobs), ledger.last_sequence())
    assert good.content == ask(application, stream=stream).content


def test_cut_stream_may_be_asked_for_again(application: TestClient, engine: ScriptedEngine, ledger: Ledger) -> None:
    """A stream that failed after tokens were delivered keeps their credit, and the same key gets a whole response."""
    engine.failure = Failed(503, "the disk is full", "ledger_unavailable", credited=True)
    assert '"ledger_unavailable"' in ask(application, stream=True).text
    engine.failure = None
    good = ask(application, stream=True)

    assert "data: [DONE]" in good.text
    assert [2, 3] == [receipt.tokens for receipt in ledger.receipts_after(0)]
    assert good.content == ask(application, stream=True).content


def test_error_after_credit_tells_clients_not_to_try_again(application: TestClient, engine: ScriptedEngine) -> None:
    """Where tokens were credited although the answer is an error, SDKs are told not to ask again by themselves."""
    engine.failure = Failed(503, "the model is stopping", "engine_unavailable", retry_after_s=5, credited=True)
    response = ask(application, headers={})
    engine.failure = Failed(503, "the model is stopping", "engine_unavailable", retry_after_s=5)

    assert (503, "false") == (response.status_code, response.headers["x-should-retry"])
    assert "x-should-retry" not in ask(application, headers={}).headers


def test_disconnected_stream_may_be_asked_for_again(
    address: str, application_key: str, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """A caller that went away in mid-stream gets a whole response under the same key, once the first one has ended."""
    engine.pieces, engine.pause_s = ("x",) * 1000, 0.02
    headers = KEY | {"Authorization": f"Bearer {application_key}"}
    asked = TEXT | {"stream": True}
    with httpx.stream("POST", f"{address}/v1/completions", json=asked, headers=headers, timeout=PATIENCE_S) as first:
        next(first.iter_lines())
    engine.pieces, engine.pause_s = ("a", "b"), 0.0

    def again() -> httpx.Response | None:
        answer = httpx.post(f"{address}/v1/completions", json=asked, headers=headers, timeout=PATIENCE_S)
        return answer if answer.status_code != 409 else None

    text = until(again, what="an answer under the key that is free again").text

    assert "data: [DONE]" in text
    assert 2 == len(engine.jobs)


def test_without_the_database_a_key_gets_503_and_others_are_served(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """Nobody can know whether the key was used, so the answer is to come back; without a key serving goes on."""
    with away(ledger.database, "claims"):
        response = ask(application)
        assert (503, "ledger_unavailable") == error(response)
        assert "5" == response.headers["retry-after"]
        assert 200 == ask(application, headers={}).status_code

    assert 200 == ask(application).status_code
    assert 2 == len(engine.jobs)


def test_claim_that_could_not_be_released_is_released_later(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """When the database goes away while an attempt fails, the key is free once it is back."""
    engine.pieces, engine.failure = ("x",), Failed(429, "all places are taken", "overloaded", retry_after_s=1)
    generate = engine.generate
    outage = away(ledger.database, "claims")

    def generate_in_outage(job: Any) -> Any:
        outage.__enter__()
        return generate(job)

    engine.generate = generate_in_outage  # type: ignore[method-assign]
    assert 429 == ask(application).status_code
    assert (503, "ledger_unavailable") == error(ask(application))
    outage.__exit__(None, None, None)
    engine.generate, engine.failure = generate, None  # type: ignore[method-assign]

    assert 200 == ask(application).status_code


def test_restarted_ingress_gives_the_response_again(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, application_key: str, tmp_path: Path
) -> None:
    """What was kept survives the ingress, also where its receipt was only promised."""
    engine.books = False
    first = ask(application)
    headers = KEY | {"Authorization": f"Bearer {application_key}"}
    restarted = TestClient(app_over(engine, ledger, keys, tmp_path / "replays", 60.0), headers=headers)

    assert first.content == restarted.post("/v1/completions", json=TEXT).content
    assert (1, 0) == (len(engine.jobs), ledger.last_sequence())


def test_receipt_that_waits_beyond_the_window_is_waited_for(
    engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, application_key: str, tmp_path: Path
) -> None:
    """While a receipt waits on a disk nothing is generated anew, however long; once it is booked it is named."""
    headers = KEY | {"Authorization": f"Bearer {application_key}"}
    client = TestClient(app_over(engine, ledger, keys, tmp_path / "r", 0.3), headers=headers)
    engine.books = False
    client.post("/v1/completions", json=TEXT)
    time.sleep(0.5)
    again = client.post("/v1/completions", json=TEXT)
    (job,) = engine.jobs

    assert (409, "idempotency_unresolved") == error(again)
    assert job.response_id in again.json()["error"]["message"]
    assert "false" == again.headers["x-should-retry"]
    ledger.append(receipt_of(job))
    assert (409, "idempotency_expired") == error(client.post("/v1/completions", json=TEXT))
    assert 1 == len(engine.jobs)


def test_rotated_key_gets_the_response_of_its_application(
    application: TestClient, application_key: str, call_as: Callable[[str], TestClient], keys: KeyRing, engine: Any
) -> None:
    """A retry with the new key is the same application's: the same answer, its attribution, and nothing generated."""
    first = ask(application)
    rotated = call_as(keys.rotate(application_key.split("_")[1], actor="test"))
    again = ask(rotated)

    assert (first.content, "true", 1) == (again.content, again.headers["idempotency-replayed"], len(engine.jobs))
    response_id = first.json()["id"]
    assert 200 == rotated.get(f"/v1/attributions/{response_id}").status_code
    stranger = call_as(keys.create("application", "rival", actor="test"))
    assert 404 == stranger.get(f"/v1/attributions/{response_id}").status_code


@pytest.mark.parametrize("stream", [True, False])
def test_response_of_a_replica_that_went_away_is_not_made_again(
    application: TestClient, engine: ScriptedEngine, ledger: Ledger, stream: bool
) -> None:
    """Its receipt may wait in the spool of the dead: the key stands for it until a cut receipt proves it unfinished."""
    engine.failure = Failed(503, "the model went away", "engine_unavailable", retry_after_s=5, is_open=True)
    ask(application, stream=stream)
    engine.failure = None
    assert (409, "idempotency_in_progress") == error(ask(application, stream=stream))
    (job,) = engine.jobs
    receipt = receipt_of(job)
    ledger.append(replace(receipt, measurement={**receipt.measurement, "cut": True, "recovered": True}))

    assert 200 == ask(application, stream=stream).status_code
    assert 2 == len(engine.jobs)


async def once_free(ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The answer under a key that an attempt still holds, asked for until it does not any more."""
    loop = asyncio.get_running_loop()

    def answer() -> Any:
        with suppress(ConflictError):
            return asyncio.run_coroutine_threadsafe(ask(), loop).result()
        return None

    return await asyncio.to_thread(until, answer)


@pytest.mark.long
@pytest.mark.parametrize("refused", [None, Failed(429, "all places are taken", "overloaded", retry_after_s=1)])
def test_caller_that_leaves_before_the_first_token_leaves_no_doubt(
    engine: GatedEngine, ledger: Ledger, keys: KeyRing, application_key: str, tmp_path: Path, refused: Any
) -> None:
    """The job goes on to its first event: tokens get a receipt that frees the key, a refusal frees it at once."""
    answers = Answers(
        engine, Limits(ledger), Idempotency(Claims(ledger.database), Replays(tmp_path / "r", 60.0)), 64, None
    )
    engine.gate.clear()
    engine.failure, engine.fails_once = refused, True
    engine.pieces = ("x",) if refused else ("x",) * 9
    request, key = CompletionRequest(**TEXT), keys.check(application_key)

    def job(response_id: str) -> Job:
        return Job(response_id, key.identity, 1, "hello", 9, 1.0, 1.0, None, (), token_level=False, streamed=False)

    async def main() -> bytes:
        asked = asyncio.create_task(answers.answer(key, job("cmpl-1"), request, "k"))
        await asyncio.to_thread(until, lambda: engine.jobs)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        with pytest.raises(ConflictError):
            await answers.answer(key, job("cmpl-2"), request, "k")
        engine.gate.set()
        return bytes((await once_free(lambda: answers.answer(key, job("cmpl-3"), request, "k"))).body)

    assert b"cmpl-3" in asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
    cut = ledger.receipt("cmpl-1")
    assert (1 if refused is None else None) == (cut and cut.tokens)


def test_request_that_the_limits_refuse_leaves_its_key_free(
    call_as: Callable[[str], TestClient], keys: KeyRing, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """A key of two requests a minute is refused the third; repeats of what was made count for nothing."""
    client = call_as(keys.create("application", "slow", actor="test", requests_per_minute=2))
    for _ in range(4):
        assert 200 == ask(client).status_code
    assert 200 == ask(client, headers={"Idempotency-Key": "b"}).status_code
    refused = ask(client, headers={"Idempotency-Key": "c"})

    assert (429, "rate_limit_exceeded") == error(refused)
    released = [row for row in _claims(ledger) if row["ended_at_us"] is not None]
    assert (2, 0, 2) == (len(engine.jobs), len(released), ledger.last_sequence())
    assert 2 == len(_claims(ledger)), "who is refused leaves no row behind"


def test_openai_client_tries_again_under_its_key(address: str, application_key: str, engine: GatedEngine) -> None:
    """The official client, told to come back, gets one response under its key; asking again later gives the same."""
    engine.pieces, engine.failure = ("x",), Failed(429, "all places are taken", "overloaded", retry_after_s=1)
    engine.fails_once = True
    with openai.OpenAI(base_url=f"{address}/v1", api_key=application_key, max_retries=2) as client:
        made = [client.completions.create(model=CARD.name, prompt="hello", extra_headers=KEY) for _ in range(2)]

    assert made[0] == made[1]
    assert 2 == len(engine.jobs)


def test_only_the_text_of_the_response_is_kept_and_not_for_ever(
    engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, application_key: str, tmp_path: Path
) -> None:
    """No prompt is on disk, only its owner may read the file, and it goes when its time is over though nobody calls."""
    headers = KEY | {"Authorization": f"Bearer {application_key}"}
    client = TestClient(app_over(engine, ledger, keys, tmp_path / "r", 10.0), headers=headers)
    client.post("/v1/completions", json=TEXT | {"prompt": "my secret"})
    (kept,) = (tmp_path / "r").iterdir()

    assert "Gott" in kept.read_text()
    assert "secret" not in kept.read_text() + str(json.loads(kept.read_text()))
    assert (0o600, 0o700) == (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777)
    os.utime(kept, (time.time() - 11,) * 2)  # its time is over
    until(lambda: not kept.exists())


class FullReplays(Replays):
    """A store on a full disk."""

    def keep(self, response_id: str, replay: Replay) -> None:
        """Refuse."""
        raise SpoolError("No space left on device")


def test_response_that_cannot_be_kept_is_given_once(
    engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, application_key: str, tmp_path: Path
) -> None:
    """On a full disk the answer is given all the same; the second time it is told that it was."""
    headers = KEY | {"Authorization": f"Bearer {application_key}"}
    app = build_app(engine, Books(ledger, keys), FullReplays(tmp_path / "r", 60.0), default_max_tokens=64)
    client = TestClient(app, headers=headers)

    assert 200 == client.post("/v1/completions", json=TEXT).status_code
    assert (409, "idempotency_expired") == error(client.post("/v1/completions", json=TEXT))


def _claims(ledger: Ledger) -> list[dict[str, Any]]:
    with ledger.database.read() as connection:
        return [dict(row) for row in connection.exec_driver_sql("SELECT * FROM claims").mappings()]


@pytest.mark.long
@pytest.mark.parametrize("refused", [None, Failed(503, "away", "engine_unavailable", retry_after_s=5)])
def test_caller_that_leaves_once_admitted_leaves_no_doubt(
    engine: GatedEngine, ledger: Ledger, keys: KeyRing, application_key: str, tmp_path: Path, refused: Any
) -> None:
    """That a stream was admitted ends no claim: its first token, or its refusal, is waited for all the same."""
    answers = Answers(
        engine, Limits(ledger), Idempotency(Claims(ledger.database), Replays(tmp_path / "r", 60.0)), 64, None
    )
    engine.gate.clear()
    engine.admits, engine.passing, engine.failure, engine.fails_once = True, 1, refused, True
    engine.pieces = ("x",) if refused else ("x",) * 9
    request, key = CompletionRequest(**TEXT, stream=True), keys.check(application_key)

    def job(response_id: str) -> Job:
        return Job(response_id, key.identity, 1, "hello", 9, 1.0, 1.0, None, (), token_level=False, streamed=True)

    async def main() -> list[str]:
        response: Any = await answers.answer(key, job("cmpl-1"), request, "k")
        heard = [await anext(response.body_iterator)]
        await response.body_iterator.aclose()
        with pytest.raises(ConflictError):
            await answers.answer(key, job("cmpl-2"), request, "k")
        engine.gate.set()
        again = await once_free(lambda: answers.answer(key, job("cmpl-3"), request, "k"))
        return [*heard, *[chunk async for chunk in again.body_iterator]]

    heard = asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
    assert heard[0].startswith(":")
    assert "cmpl-3" in heard[-2]
    assert (None if refused else 1) == ((cut := ledger.receipt("cmpl-1")) and cut.tokens)
