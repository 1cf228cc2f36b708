"""Token ids in and out of `/v1/completions`, as vLLM has it: what another service needs of us to be its engine."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from deployment.replica.messages import PromptIds
from tests.deployment.gateway.engines import ScriptedEngine
from tests.deployment.gateway.test_refusals import error_of
from tests.deployment.gateway.test_routes import CHAT, TEXT, events

IDS = TEXT | {"return_token_ids": True}


@pytest.mark.parametrize("prompt", [[7, 0, 9], [[7, 0, 9]]])
def test_a_prompt_may_be_token_ids(application: TestClient, engine: ScriptedEngine, prompt: Any) -> None:
    """They reach the model as they stand; a list of one list of them is the same."""
    assert 200 == application.post("/v1/completions", json=TEXT | {"prompt": prompt}).status_code
    assert PromptIds((7, 0, 9)) == engine.jobs[0].prompt


def test_ids_of_prompt_and_response_are_told(application: TestClient) -> None:
    """In the one choice of an answer, beside its text; who does not ask is told none."""
    (choice,) = application.post("/v1/completions", json=IDS | {"prompt": [7, 0, 9]}).json()["choices"]
    (silent,) = application.post("/v1/completions", json=TEXT).json()["choices"]

    assert ("Grüß Gott", [4, 1, 4], [7, 0, 9]) == (choice["text"], choice["token_ids"], choice["prompt_token_ids"])
    assert not {"token_ids", "prompt_token_ids"} & silent.keys()


def test_ids_of_a_stream_come_with_its_text(application: TestClient) -> None:
    """Those of the prompt in the first chunk and nowhere else; no chunk has text without the ids of its tokens."""
    body = application.post("/v1/completions", json=IDS | {"stream": True}).text
    choices = [each for chunk in events(body)[:-1] for each in chunk["choices"]]

    assert [[1, 2, 3, 4, 5], None, None, None] == [choice.get("prompt_token_ids") for choice in choices]
    assert [[4], [1], [4], None] == [choice.get("token_ids") for choice in choices]
    assert [None, None, None, "stop"] == [choice["finish_reason"] for choice in choices]
    assert "" == choices[-1]["text"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_repeated_answer_has_its_ids(application: TestClient, engine: ScriptedEngine, stream: bool) -> None:
    """Under the same key the same is told again, ids and log-probabilities by id."""
    asked = IDS | {"stream": stream, "logprobs": 1, "return_tokens_as_token_ids": True}
    answers = [
        application.post("/v1/completions", json=asked, headers={"Idempotency-Key": "once"}).text for _ in range(2)
    ]

    assert answers[0] == answers[1]
    assert 1 == len(engine.jobs)
    assert "token_ids" in answers[0] and "token_id:4" in answers[0]


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_named_by_their_ids(application: TestClient, stream: bool) -> None:
    """Where log-probabilities are told, so that no two tokens with the same text are taken for each other."""
    asked = TEXT | {"logprobs": 2, "return_tokens_as_token_ids": True, "stream": stream}
    answer = application.post("/v1/completions", json=asked)
    choices = [each for body in (events(answer.text)[:-1] if stream else [answer.json()]) for each in body["choices"]]
    told = [choice["logprobs"] for choice in choices if choice["logprobs"]]

    assert ["token_id:4", "token_id:1", "token_id:4"] == [token for each in told for token in each["tokens"]]
    likely: Iterator[dict[str, float]] = (place for each in told for place in each["top_logprobs"])
    assert {"token_id:4": -0.5, "token_id:0": -2.0} == next(likely)


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/v1/completions", TEXT | {"return_token_ids": "yes"}, "return_token_ids"),
        ("/v1/completions", TEXT | {"return_tokens_as_token_ids": 1}, "return_tokens_as_token_ids"),
        ("/v1/completions", TEXT | {"repetition_penalty": 1.1}, "repetition_penalty"),
        ("/v1/chat/completions", CHAT | {"return_token_ids": True}, "return_token_ids"),
    ],
)
def test_what_we_do_not_do_with_ids_is_named(application: TestClient, route: str, body: Any, param: str) -> None:
    """Switches are true or false, chat has none of them, and a penalty of repetition is none of ours."""
    assert param == error_of(application.post(route, json=body), 400)["param"]
    assert 200 == application.post("/v1/completions", json=TEXT | {"repetition_penalty": 1.0}).status_code
