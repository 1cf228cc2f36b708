"""Tokens a second of a vLLM that runs on the same device, alone and while responses are scored beside it."""

import asyncio
import threading
import time
from collections.abc import Callable

import httpx

TIMEOUT_S = 600.0


def engine_tokens_per_s(client: Callable[[], httpx.AsyncClient], model: str, streams: int, tokens: int) -> float:
    """Of so many responses at once, none of which ends by itself.

    Args:
        client: makes one, with the address of the engine.
        model: the name that it serves.
        streams: how many.
        tokens: of each.
    """
    return asyncio.run(_tokens_per_s(client, model, streams, tokens))


def while_working(work: Callable[[], object], measured: Callable[[], float]) -> float:
    """What is measured while work is done again and again in another thread."""
    ending = threading.Event()
    failures: list[Exception] = []

    def go_on() -> None:
        try:
            while not ending.is_set():
                work()
        except Exception as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        return measured()
    finally:
        ending.set()
        thread.join()
        if failures:
            raise failures[0]


async def _tokens_per_s(client: Callable[[], httpx.AsyncClient], model: str, streams: int, tokens: int) -> float:
    async with client() as connection:
        begin = time.perf_counter()
        made = await asyncio.gather(*(_ask(connection, model, number, tokens) for number in range(streams)))
        return sum(made) / (time.perf_counter() - begin)


async def _ask(connection: httpx.AsyncClient, model: str, number: int, tokens: int) -> int:
    body = {
        "model": model,
        "prompt": [3 + number, *range(4, 35)],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    answer = (await connection.post("/v1/completions", json=body)).raise_for_status().json()
    made: int = answer["usage"]["completion_tokens"]
    return made
