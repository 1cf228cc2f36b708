"""Streams of OpenAI's own client, so many at once, and when each piece of text came."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import openai

from tests.benchmarks.serving.loads import Load, Reply

TIMEOUT_S = 1200.0
SHORT = 8  # so few tokens may come in one piece or two


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        address: where, with the path of its API.
        model: the name that it serves its model by.
        key: what it wants to be shown.
        options: what it must be asked for to tell its usage.
        pid: the process that everything it needs descends from.
        ledger: URL of its ledger, where it has one.
    """

    address: str
    model: str
    key: str
    options: dict[str, Any]
    pid: int
    ledger: str = ""


def drive(server: Server, prompts: Sequence[str], streams: int, tokens: int) -> Load:
    """Ask for a response to every prompt, so many at once: a stream asks for its next when one has ended."""
    return asyncio.run(_drive(server, prompts, streams, tokens))


async def _drive(server: Server, prompts: Sequence[str], streams: int, tokens: int) -> Load:
    waiting = iter(prompts)
    async with openai.AsyncOpenAI(
        base_url=server.address, api_key=server.key, max_retries=0, timeout=TIMEOUT_S
    ) as client:
        replies = await asyncio.gather(*(_stream(client, server, waiting, tokens) for _ in range(streams)))
    return Load(streams, tuple(chain.from_iterable(replies)))


async def _stream(client: openai.AsyncOpenAI, server: Server, waiting: Iterator[str], tokens: int) -> list[Reply]:
    return [await _ask(client, server, prompt, tokens) for prompt in waiting]


async def _ask(client: openai.AsyncOpenAI, server: Server, prompt: str, tokens: int) -> Reply:
    pieces, texts, usage = [], [], None
    begin = time.perf_counter()
    chunks = await client.completions.create(
        model=server.model, prompt=prompt, max_tokens=tokens, temperature=0, stream=True, **server.options
    )
    async for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            if choice.text:
                pieces.append(time.perf_counter())
                texts.append(choice.text)
    end = time.perf_counter()
    assert usage is not None, f"{server.address} told no usage for {prompt!r}"
    assert len(pieces) > 2 or usage.completion_tokens < SHORT, f"{server.address} does not stream {prompt!r}"
    return Reply(prompt, "".join(texts), usage.completion_tokens, begin, tuple(pieces), end)
