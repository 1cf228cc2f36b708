"""Rows of an engine: its tokens as steps of ours, and whatever it does otherwise ends that row and no other."""

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from attribution.decoding.row import Row
from attribution.decoding.sampling import Choice
from attribution.errors import ContextLengthError
from attribution.model import FederatedModel
from attribution.records import Sampling, Step
from deployment.replica.engines.connection import Connection
from deployment.replica.engines.errors import EngineError
from deployment.replica.engines.remote_batch import RemoteBatch
from tests.deployment.replica.engines.fake_engine import NAME, FakeEngine, Item, Script, chunk, ids_for, speak, usage
from tests.waiting import PATIENCE_S, until

PROMPT = [40, 41, 42]
SILENT = Sampling(8, tells_logprobs=False)


def all_steps(batch: RemoteBatch, patience_s: float = PATIENCE_S) -> tuple[list[Step], dict[str, Exception]]:
    """Steps and failures until no row wants more."""
    steps: list[Step] = []
    failures: dict[str, Exception] = {}
    end = time.monotonic() + patience_s
    while len(batch) and time.monotonic() < end:
        told = batch.step()
        assert len(told) == len({step.key for step in told}), "a row has one token a step at most"
        steps += told
        failures |= batch.take_failures()
    assert not len(batch), "the engine's answers have no end"
    return steps, failures


def failure_of(batch: RemoteBatch, sampling: Sampling = SILENT) -> tuple[int, EngineError]:
    """How many tokens a row had, and what it failed of."""
    batch.join("r", PROMPT, sampling)
    steps, failures = all_steps(batch)
    (error,) = failures.values()
    assert isinstance(error, EngineError), repr(error)
    assert len(steps) == len(batch.leave("r").token_ids)
    return len(steps), error


def test_tokens_of_an_engine_are_steps_of_ours(model: FederatedModel, batch: RemoteBatch, engine: FakeEngine) -> None:
    """In order, with the text that our own decoder makes of them, to the same end."""
    batch.join("r", PROMPT, SILENT)
    steps, failures = all_steps(batch)
    row = Row("r", PROMPT, SILENT, model.backend_tokenizer)
    ids = ids_for({"prompt": PROMPT, "max_tokens": 8})

    assert {} == failures
    assert [row.emit(Choice(token, 0.0), set()) for token in ids] == steps
    assert row.generation().text == batch.leave("r").text
    assert (8, 0) == (len(steps), engine.left)


def test_what_is_asked_is_sent(batch: RemoteBatch, engine: FakeEngine) -> None:
    """Ids and not text, every way to sample, nothing left to the engine's defaults, no stop string, and its key."""
    sampling = Sampling(
        5, 0.7, 0.9, 11, ("stop",), top_k=3, min_p=0.1, frequency_penalty=0.5, presence_penalty=-0.5,
        logit_bias={7: 2.0}, top_logprobs=2, tells_logprobs=True,
    )  # fmt: skip
    batch.join("r", PROMPT, sampling)
    batch.join("greedy", PROMPT, Sampling(2, 0.7, 0.0, tells_logprobs=False))
    all_steps(batch)
    sent = {len(body): body for body in engine.bodies}

    assert {
        "model": NAME, "prompt": PROMPT, "max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "top_k": 3, "min_p": 0.1,
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "repetition_penalty": 1.0, "logit_bias": {"7": 2.0},
        "seed": 11, "logprobs": 2, "return_tokens_as_token_ids": True, "return_token_ids": True, "stream": True,
        "stream_options": {"include_usage": True},
    } == sent[max(sent)]  # fmt: skip
    assert (0.0, 1.0) == (sent[min(sent)]["temperature"], sent[min(sent)]["top_p"])
    assert {("Bearer sk-very-secret", "r"), ("Bearer sk-very-secret", "greedy")} == {
        (headers["Authorization"], headers["X-Request-Id"]) for headers in engine.headers
    }


def test_log_probabilities_are_the_engines(batch: RemoteBatch) -> None:
    """By ids, the likeliest first, no more than were asked for."""
    batch.join("r", PROMPT, Sampling(3, top_logprobs=1))
    steps, _ = all_steps(batch)

    assert [(-0.5, ((step.token_id, -0.5),)) for step in steps] == [(step.logprob, step.top_logprobs) for step in steps]


def test_a_stop_string_is_found_here(model: FederatedModel, batch: RemoteBatch, engine: FakeEngine) -> None:
    """The engine knows nothing of it: the row ends before it, and the engine is let go at once."""
    text = model.backend_tokenizer.decode(ids_for({"prompt": PROMPT, "max_tokens": 40}))
    engine.script = lambda body: chain(speak(body), [2.0 * PATIENCE_S])
    batch.join("r", PROMPT, Sampling(40, stop=(text[5:7],), tells_logprobs=False))
    steps, failures = all_steps(batch)

    assert ({}, "stop", text[:5]) == (failures, steps[-1].finish_reason, "".join(step.text for step in steps))
    until(lambda: engine.left == 1)


def test_where_the_engine_stops_at_a_token_the_row_ends(batch: RemoteBatch, engine: FakeEngine) -> None:
    """Its tokens that end a response may be others than the bundle's; several may come in one chunk."""

    def stop_early(body: dict[str, Any]) -> Iterator[Item]:
        yield chunk([40, 41], "ab", prompt_token_ids=body["prompt"])
        yield chunk([42, 43], "cd", finish_reason="stop")
        yield usage(4)

    engine.script = stop_early
    batch.join("r", PROMPT, SILENT)
    steps, failures = all_steps(batch)

    assert ({}, [40, 41, 42, 43]) == (failures, [step.token_id for step in steps])
    assert [None, None, None, "stop"] == [step.finish_reason for step in steps]


def test_a_token_that_ends_a_response_for_the_bundle_ends_it(
    model: FederatedModel, line: Connection, engine: Any
) -> None:
    """Also where the engine goes on behind it, which is let go."""

    class Ending:
        end_token_ids = {42}  # noqa: RUF012

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    def go_on(body: dict[str, Any]) -> Iterator[Item]:
        yield chunk([40], "a", prompt_token_ids=body["prompt"])
        for token in (42, 43, 44):
            yield chunk([token], "b")
        yield 2.0 * PATIENCE_S

    engine.script = go_on
    batch = RemoteBatch(Ending(), line, NAME)  # type: ignore[arg-type]
    batch.join("r", PROMPT, SILENT)
    steps, failures = all_steps(batch)

    assert ({}, [40, 42]) == (failures, [step.token_id for step in steps])
    assert "stop" == steps[-1].finish_reason
    until(lambda: engine.left == 1)


def altered(place: int, change: Any) -> Script:
    """The well-behaved answer, with one item changed: by what `change` makes of it, as a list."""

    def script(body: dict[str, Any]) -> Iterator[Item]:
        for n, item in enumerate(speak(body)):
            yield from change(item) if n == place else [item]

    return script


def with_choice(**fields: Any) -> Any:
    """A change of fields of the choice."""
    return lambda item: [{**item, "choices": [{**item["choices"][0], **fields}]}]


BREACHES = {
    "another prompt": (altered(0, with_choice(prompt_token_ids=[40, 41])), 0),
    "without the ids of the prompt": (altered(0, with_choice(prompt_token_ids=None)), 0),
    "text without token ids": (altered(3, with_choice(token_ids=[])), 3),
    "text without": (altered(3, with_choice(token_ids=None)), 3),
    "tells 11 tokens where 8 came": (altered(8, lambda _: [usage(11)]), 7),
    "no count of its tokens": (altered(8, lambda _: []), 7),
    "token 259, but the model's last token is 258": (altered(2, with_choice(token_ids=[259])), 2),
    "token -1": (altered(2, with_choice(token_ids=[-1])), 2),
    "ends by 'length' at no token": (altered(4, lambda _: [chunk([], finish_reason="length"), b"data: [DONE]\n\n"]), 4),
    "ends by 'stop' at no token": (altered(4, lambda _: [chunk([], finish_reason="stop"), b"data: [DONE]\n\n"]), 4),
    "no list of integers": (altered(2, with_choice(token_ids=["40"])), 2),
    "several choices": (altered(2, lambda item: [{"choices": item["choices"] * 2}]), 2),
    "Expecting property name": (altered(2, lambda _: [b"data: {nonsense\n\n"]), 2),
    "a chunk is no object": (altered(2, lambda _: [b"data: 5\n\n"]), 2),
}


@pytest.mark.parametrize(("what", "script", "tokens"), [(what, *rest) for what, rest in BREACHES.items()], ids=BREACHES)
def test_an_engine_that_breaks_the_protocol_ends_this_response(
    batch: RemoteBatch, engine: FakeEngine, what: str, script: Script, tokens: int
) -> None:
    """Its failure says what is wrong; what came before stands, and the last token is not given without its count."""
    engine.script = script
    had, error = failure_of(batch)

    assert (500, "engine_failed", tokens) == (error.status, error.code, had)
    assert what in str(error)
    engine.script = speak
    batch.join("next", PROMPT, SILENT)
    assert {} == all_steps(batch)[1]


@pytest.mark.parametrize(
    ("script", "tokens"),
    [
        (altered(3, lambda _: [None]), 3),
        (altered(3, lambda _: [b"data: [DONE]\n\n"]), 3),
        (altered(3, lambda _: [b'data: {"error": {"message": "CUDA"}}\n\n']), 3),
    ],
    ids=["line", "end", "error"],
)
def test_a_break_in_the_middle_keeps_what_came(
    batch: RemoteBatch, engine: FakeEngine, script: Script, tokens: int
) -> None:
    """The response ends as one that was cut; it is not asked for again, as half of it was told."""
    engine.script = script
    had, error = failure_of(batch)

    assert (503, "engine_unavailable", tokens) == (error.status, error.code, had)
    assert 1 == len(engine.bodies)
    assert "CUDA" not in str(error)


def test_missing_log_probabilities_are_a_breach_where_asked_for(batch: RemoteBatch, engine: FakeEngine) -> None:
    """And where not nobody misses them."""
    engine.script = lambda body: speak({**body, "logprobs": None})

    assert "no log-probabilities" in str(failure_of(batch, Sampling(8))[1])


def test_an_answer_that_is_no_stream_is_a_breach(batch: RemoteBatch, engine: FakeEngine) -> None:
    """As of a server that knows nothing of `stream`."""
    engine.refusals = [(200, {"Content-Type": "application/json"}, {"choices": []})]

    assert "no stream of events" in str(failure_of(batch)[1])


SAID = {"error": {"message": "max_tokens is too large\nfor Bearer sk-very-secret, see sk-very-secret", "code": 400}}


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        ((400, {}, SAID), (400, "engine_refused", None)),
        ((422, {}, "<html>"), (400, "engine_refused", None)),
        ((429, {"Retry-After": "7"}, SAID), (429, "overloaded", 7)),
        ((503, {"Retry-After": "9"}, SAID), (503, "engine_unavailable", 9)),
        ((401, {}, SAID), (503, "engine_unavailable", 5)),
        ((404, {}, SAID), (503, "engine_unavailable", 5)),
        ((307, {"Location": "http://127.0.0.1:9/"}, ""), (503, "engine_unavailable", 5)),
    ],
    ids=lambda each: str(each[0]),
)
def test_a_refusal_is_passed_on(
    batch: RemoteBatch, engine: FakeEngine, refusal: Any, expected: tuple[int, str, int | None]
) -> None:
    """What the application did wrong with what the engine says of it, that it is busy with its time, and no key."""
    engine.refusals = [refusal]
    had, error = failure_of(batch)

    assert (0, *expected) == (had, error.status, error.code, error.retry_after_s)
    assert "secret" not in str(error) and "\n" not in str(error)
    assert ("max_tokens is too large" in str(error)) == (refusal[0] == 400)
    assert 1 == len(engine.bodies)


@pytest.mark.parametrize(("failures", "served"), [(2, True), (3, False)])
def test_what_was_not_begun_is_asked_again_a_few_times(
    batch: RemoteBatch, engine: FakeEngine, failures: int, served: bool
) -> None:
    """Three times in all; then the application is told to come back."""
    engine.refusals = [(500, {}, SAID)] * failures
    batch.join("r", PROMPT, SILENT)
    steps, failed = all_steps(batch)

    assert (8 if served else 0) == len(steps)
    assert 3 == len(engine.bodies)
    assert served == (failed == {})


def test_an_engine_that_is_not_there_is_503(model: FederatedModel, engine: FakeEngine) -> None:
    """As soon as the tries are over."""
    line = Connection("http://127.0.0.1:9")
    batch = RemoteBatch(model, line, NAME)
    had, error = failure_of(batch)
    line.close()

    assert (0, 503, "engine_unavailable", 5) == (had, error.status, error.code, error.retry_after_s)


def test_who_leaves_lets_the_engine_go(batch: RemoteBatch, engine: FakeEngine) -> None:
    """A row that is taken out closes its answer; the others go on."""
    engine.script = lambda body: chain(speak(body), [2.0 * PATIENCE_S] if body["max_tokens"] == 100 else [])
    batch.join("leaves", PROMPT, Sampling(100, tells_logprobs=False))
    batch.join("stays", PROMPT, SILENT)
    while not batch.step():
        pass
    left = batch.leave("leaves")
    steps, failures = all_steps(batch)

    assert len(left.token_ids) < 100
    assert ({}, {"stays"}) == (failures, {step.key for step in steps})
    until(lambda: engine.left == 1)


def test_what_cannot_join_is_refused_here(batch: RemoteBatch, engine: FakeEngine) -> None:
    """By the bundle's context, without a word to the engine."""
    with pytest.raises(ContextLengthError):
        batch.join("r", PROMPT, Sampling(126))

    assert [] == engine.bodies
