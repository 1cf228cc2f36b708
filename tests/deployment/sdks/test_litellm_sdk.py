"""LiteLLM unchanged, by its route for servers that speak OpenAI's API."""

import asyncio
import os
from typing import Any

import pytest

from deployment.replica.messages import Failed
from tests.deployment.gateway.engines import CARD, ScriptedEngine

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def litellm() -> Any:
    """The library, told to look up no prices on the network."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return pytest.importorskip("litellm")


@pytest.fixture
def where(address: str, application_key: str) -> dict[str, Any]:
    """Where the model is, and by which key."""
    return {"model": f"openai/{CARD.name}", "api_base": f"{address}/v1", "api_key": application_key, "max_retries": 0}


def test_a_completion_is_answered_whole(litellm: Any, where: dict[str, Any], engine: ScriptedEngine) -> None:
    """Text, usage, log-probabilities and several choices; what is asked of the choice reaches the engine."""
    made = litellm.completion(
        **where, messages=MESSAGES, n=2, temperature=0.5, seed=7, max_tokens=9, logprobs=True, top_logprobs=1,
        frequency_penalty=0.1, logit_bias={"17": -100}, extra_body={"top_k": 40, "attribution": True},
    )  # fmt: skip

    assert ["Grüß Gott"] * 2 == [choice.message.content for choice in made.choices]
    assert (5, 6, 11) == (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens)
    assert [3, 3] == [len(choice.logprobs.content) for choice in made.choices]
    assert (40, {17: -100.0}) == (engine.jobs[-1].top_k, engine.jobs[-1].logit_bias)


def test_a_stream_is_joined(litellm: Any, where: dict[str, Any]) -> None:
    """By LiteLLM's own builder, with its usage, in sync and async."""
    chunks = list(litellm.completion(**where, messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    joined = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    assert ("Grüß Gott", 8) == (joined.choices[0].message.content, joined.usage.total_tokens)

    async def ask() -> tuple[str, str]:
        chunks = await litellm.acompletion(**where, messages=MESSAGES, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in chunks]
        return "".join(pieces), (await litellm.acompletion(**where, messages=MESSAGES)).choices[0].message.content

    assert ("Grüß Gott", "Grüß Gott") == asyncio.run(ask())


def test_a_text_completion_is_answered(litellm: Any, where: dict[str, Any]) -> None:
    """The older route."""
    where["model"] = f"text-completion-openai/{CARD.name}"
    assert "Grüß Gott" == litellm.text_completion(**where, prompt="hello").choices[0].text


def test_refusals_are_litellms_errors(litellm: Any, where: dict[str, Any], engine: ScriptedEngine) -> None:
    """400 and 429 are told apart."""
    with pytest.raises(litellm.BadRequestError, match="repetition_penalty"):
        litellm.completion(**where, messages=MESSAGES, extra_body={"repetition_penalty": 1.1})
    engine.pieces, engine.failure = ("x",), Failed(429, "full", "overloaded", retry_after_s=7)
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(**where, messages=MESSAGES)
