"""LangChain unchanged: its chat model and its text model for servers that speak OpenAI's API."""

import asyncio
from typing import Any

import openai
import pytest

from tests.deployment.gateway.engines import CARD, ScriptedEngine


@pytest.fixture
def langchain() -> Any:
    """The library, which takes a while to import: only for these tests."""
    return pytest.importorskip("langchain_openai")


@pytest.fixture
def where(address: str, application_key: str) -> dict[str, Any]:
    """Where the model is, and by which key."""
    return {"base_url": f"{address}/v1", "api_key": application_key, "model": CARD.name, "max_retries": 0}


def test_a_chat_model_answers_whole(langchain: Any, where: dict[str, Any], engine: ScriptedEngine) -> None:
    """Text, usage, log-probabilities; what is asked of the choice reaches the engine."""
    extra = {"top_k": 40, "attribution": True}
    model = langchain.ChatOpenAI(
        **where, temperature=0.5, seed=7, max_tokens=9, logprobs=True, top_logprobs=2, extra_body=extra
    )
    message = model.invoke([("system", "be brief"), ("human", "hello"), ("ai", "yes?"), ("human", "go on")])

    assert "Grüß Gott" == message.content
    assert {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}.items() <= message.usage_metadata.items()
    assert 3 == len(message.response_metadata["logprobs"]["content"])
    assert ("stop", 40, 7, 9) == (
        message.response_metadata["finish_reason"],
        engine.jobs[-1].top_k,
        engine.jobs[-1].seed,
        engine.jobs[-1].max_tokens,
    )
    assert ["system", "user", "assistant", "user"] == [each.role for each in engine.jobs[-1].prompt]


def test_a_chat_model_streams_and_joins(langchain: Any, where: dict[str, Any]) -> None:
    """Chunks add up to the message and its usage, in sync and async."""
    model = langchain.ChatOpenAI(**where, stream_usage=True)
    chunks = list(model.stream("hello"))
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined = joined + chunk
    assert ("Grüß Gott", 8) == (joined.content, joined.usage_metadata["total_tokens"])

    async def ask() -> tuple[str, str]:
        pieces = [chunk.content async for chunk in model.astream("hello")]
        return "".join(pieces), (await model.ainvoke("hello")).content

    assert ("Grüß Gott", "Grüß Gott") == asyncio.run(ask())


def test_several_generations_and_a_batch(langchain: Any, where: dict[str, Any], engine: ScriptedEngine) -> None:
    """`n` gives as many generations of each prompt, and a batch asks for each prompt."""
    messages = pytest.importorskip("langchain_core.messages")
    prompts = [[messages.HumanMessage(text)] for text in ("hello", "again")]
    made = langchain.ChatOpenAI(**where, n=3).generate(prompts)
    assert [3, 3] == [len(each) for each in made.generations]
    assert 18 == made.llm_output["token_usage"]["completion_tokens"]
    assert ["Grüß Gott"] * 2 == [message.content for message in langchain.ChatOpenAI(**where).batch(["hello", "again"])]
    assert 8 == len(engine.jobs)


def test_a_text_model_answers(langchain: Any, where: dict[str, Any]) -> None:
    """Text completions, whole and streamed."""
    model = langchain.OpenAI(**where, max_tokens=9)
    assert "Grüß Gott" == model.invoke("hello") == "".join(model.stream("hello"))


def test_a_refusal_is_openais_error(langchain: Any, where: dict[str, Any]) -> None:
    """A field that the service does not know is named in it."""
    with pytest.raises(openai.BadRequestError, match="repetition_penalty"):
        langchain.ChatOpenAI(**where, extra_body={"repetition_penalty": 1.1}).invoke("hello")
