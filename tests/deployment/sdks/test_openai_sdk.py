"""openai-python unchanged: sync, async and its `.stream()` helper, with what may be asked for."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from deployment.replica.messages import Failed
from tests.deployment.gateway.engines import CARD, ScriptedEngine

ASKED: dict[str, Any] = {"model": CARD.name, "messages": [{"role": "user", "content": "hello"}]}
SAMPLED: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.2,
    "logit_bias": {"17": -100},
    "stop": ["never"],
    "seed": 7,
    "max_completion_tokens": 9,
    "logprobs": True,
    "top_logprobs": 2,
    "n": 2,
    "extra_body": {"top_k": 40, "min_p": 0.1, "attribution": "tokens"},
}


@pytest.fixture
def client(address: str, application_key: str) -> Iterator[openai.OpenAI]:
    """A client of an application."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key=application_key, max_retries=0) as client:
        yield client


def _check(made: Any, engine: ScriptedEngine) -> None:
    """Two choices with text, log-probabilities and attribution each, as they were asked for."""
    assert [(0, "stop"), (1, "stop")] == [(choice.index, choice.finish_reason) for choice in made.choices]
    for choice in made.choices:
        told = choice.logprobs.content
        assert choice.message.content == "".join(token.token for token in told) == "Grüß Gott"
        assert choice.message.content.encode() == bytes(byte for token in told for byte in token.bytes)
        assert [2, 2, 2] == [len(token.top_logprobs) for token in told]
        assert [0, 1, 2] == [token["index"] for token in choice.message.attribution["content"]]
    assert [made.id, f"{made.id}-1"] == [each["id"] for each in made.usage.attribution["choices"]]
    assert (5, 6, 11) == (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens)
    job = engine.jobs[-1]
    assert (40, 0.1, 0.1, 0.2, {17: -100.0}) == (
        job.top_k,
        job.min_p,
        job.frequency_penalty,
        job.presence_penalty,
        job.logit_bias,
    )


def test_what_may_be_asked_for_is_answered_whole_and_by_the_helper(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    """`create` and the completion that `.stream()` joins are the same, but for the id."""
    whole = client.chat.completions.create(**ASKED, **SAMPLED)
    _check(whole, engine)
    with client.chat.completions.stream(**ASKED, **SAMPLED, stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        joined = stream.get_final_completion()
    _check(joined, engine)

    assert {"content.delta", "content.done", "logprobs.content.delta", "logprobs.content.done"} <= kinds
    for mine, other in zip(whole.choices, joined.choices, strict=True):
        assert (mine.message.content, mine.logprobs) == (other.message.content, other.logprobs)


def test_text_completions_have_log_probabilities(client: openai.OpenAI) -> None:
    """The older shape, whole and joined from a stream."""
    asked: dict[str, Any] = {"model": CARD.name, "prompt": "hello", "logprobs": 2}
    whole = client.completions.create(**asked).choices[0].logprobs
    chunks = [chunk.choices[0].logprobs for chunk in client.completions.create(**asked, stream=True)]
    told = [chunk for chunk in chunks if chunk is not None]

    assert whole is not None
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert getattr(whole, name) == [each for chunk in told for each in getattr(chunk, name)]
    assert [0, 4, 5] == whole.text_offset


def test_headers_are_with_the_raw_response(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    """`with_raw_response` gives the request's id, and of a refusal the time to come back."""
    raw = client.chat.completions.with_raw_response.create(**ASKED)
    assert raw.headers["x-request-id"] == raw.request_id
    assert "Grüß Gott" == raw.parse().choices[0].message.content

    engine.pieces, engine.failure = ("x",), Failed(429, "full", "overloaded", retry_after_s=7)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**ASKED)
    assert ("7", "overloaded") == (refused.value.response.headers["retry-after"], refused.value.code)


def test_the_async_client_does_the_same(address: str, application_key: str, engine: ScriptedEngine) -> None:
    """Whole, streamed, by the helper, and several at once."""

    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=application_key, max_retries=0) as client:
            _check(await client.chat.completions.create(**ASKED, **SAMPLED), engine)
            async with client.chat.completions.stream(**ASKED, **SAMPLED) as stream:
                _check(await stream.get_final_completion(), engine)
            chunks = await client.chat.completions.create(**ASKED, stream=True)
            assert "Grüß Gott" == "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
            many = await asyncio.gather(*(client.chat.completions.create(**ASKED) for _ in range(8)))
            assert {"Grüß Gott"} == {made.choices[0].message.content for made in many}
            with pytest.raises(openai.BadRequestError, match="repetition_penalty"):
                await client.chat.completions.create(**ASKED, extra_body={"repetition_penalty": 1.1})

    asyncio.run(ask())
