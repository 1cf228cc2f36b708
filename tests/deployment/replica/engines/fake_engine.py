"""An engine that speaks the protocol from a script, on a port of its own; and one that misbehaves as it is told."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from tests.waiting import PATIENCE_S

NAME = "demo"
Item = dict[str, Any] | bytes | float | None
"""A chunk, raw bytes, seconds to wait, or (None) the line that breaks off."""
Script = Callable[[dict[str, Any]], Iterator[Item]]


def ids_for(body: dict[str, Any]) -> list[int]:
    """What it says: as many tokens as it may, of some that are plain letters in the tests' models."""
    return [36 + (sum(body["prompt"]) + 7 * n) % 20 for n in range(body["max_tokens"])]


def chunk(ids: Sequence[int] | None = None, text: str = "", **rest: Any) -> dict[str, Any]:
    """A chunk with one choice; `rest` are fields of that, but `usage`."""
    usage = {"usage": {"completion_tokens": rest.pop("usage")}} if "usage" in rest else {}
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None, **rest}
    return {"choices": [choice if ids is None else {**choice, "token_ids": list(ids)}], **usage}


def usage(tokens: int) -> dict[str, Any]:
    """The last chunk."""
    return {"choices": [], "usage": {"completion_tokens": tokens}}


def logprobs_of(body: dict[str, Any], token: int, noise: float = 0.0) -> dict[str, Any]:
    """What it tells of a token where it is asked: it was likely, and the one behind it was next to that."""
    if body.get("logprobs") is None:
        return {}
    top = {f"token_id:{token}": -0.5 + noise, f"token_id:{token + 1}": -2.0}
    told = {"tokens": [f"token_id:{token}"], "token_logprobs": [-0.5 + noise], "top_logprobs": [top]}
    return {"logprobs": told}


def speak(body: dict[str, Any]) -> Iterator[Item]:
    """A well-behaved answer, a token a chunk."""
    ids = ids_for(body)
    for n, token in enumerate(ids):
        prompt = {"prompt_token_ids": body["prompt"]} if n == 0 else {}
        end = {"finish_reason": "length"} if n == len(ids) - 1 else {}
        yield chunk([token], "x", **prompt, **end, **logprobs_of(body, token))
    yield usage(len(ids))


class FakeEngine:
    """On a port of 127.0.0.1, in a thread of its own.

    Attributes:
        script: what it answers.
        refusals: statuses, headers and bodies that it answers with first, one for each request.
        bodies: what it was asked.
        headers: with which headers.
        left: how many answers were let go before their end.
        served: names of the models it lists.
    """

    def __init__(self) -> None:
        self.script: Script = speak
        self.refusals: list[tuple[int, dict[str, str], Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.left = 0
        self.served = [NAME]
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def stop(self) -> None:
        """Hang up on everybody."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.served]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers)
        if self.refusals:
            status, headers, said = self.refusals.pop(0)
            return web.Response(
                status=status, headers=headers, text=said if isinstance(said, str) else json.dumps(said)
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for item in self.script(body):
                match item:
                    case None:
                        assert request.transport is not None
                        request.transport.abort()
                        return response
                    case float():
                        await asyncio.sleep(item)
                    case bytes():
                        await response.write(item)
                    case _:
                        await response.write(b"data: " + json.dumps(item).encode() + b"\n\n")
            await response.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        return response


@contextmanager
def engine_at_work() -> Iterator[FakeEngine]:
    """One that listens for as long as the `with` lasts."""
    engine = FakeEngine()
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
