"""Applications that ask, leave in the middle, and ask again under one Idempotency-Key; and what they saw.

Knows nothing of the books.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

import httpx

from tests.benchmarks.mixed_load.requests import COMPLETIONS, bad_requests, good_body
from tests.benchmarks.serving.client import Server

PATIENCE_S = 60.0
"""How long one key is tried: a crash can leave a claim of which nobody can say what became of it."""
LONGEST_WAIT_S = 5.0
TIMEOUT_S = 120.0


@dataclass
class Seen:
    """What the callers saw.

    Attributes:
        whole: tokens of each response of which the end was seen, by its id.
        doubled: keys that were answered with two responses.
        odd: answers that nobody should get.
        counts: how often what happened, to show that everything was tried.
    """

    whole: dict[str, int] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Answer:
    """What came of a request: a whole response, or none and how long to wait; None where no other try will do."""

    response_id: str = ""
    tokens: int = 0
    wait_s: float | None = 1.0

    @property
    def is_whole(self) -> bool:
        return self.tokens > 0


class Caller:
    """One application's connection, which asks for one thing after another."""

    def __init__(self, server: Server, seen: Seen, seed: int) -> None:
        self._server = server
        self._seen = seen
        self._chance = Random(seed)
        self._answered: list[tuple[str, dict[str, Any], str]] = []  # key, body and response id

    async def call(self, deadline: float) -> None:
        """Ask until then, by the loop's clock; what is under way is brought to its end."""
        headers = {"Authorization": f"Bearer {self._server.key}"}
        async with httpx.AsyncClient(base_url=self._server.address, headers=headers, timeout=TIMEOUT_S) as client:
            while asyncio.get_running_loop().time() < deadline:
                what = self._chance.random()
                if what < 0.15:
                    await self._ask_badly(client)
                elif what < 0.25 and self._answered:
                    await self._ask_once_more(client)
                else:
                    await self._ask(client)
                await asyncio.sleep(self._chance.uniform(0, 0.3))

    async def _ask(self, client: httpx.AsyncClient) -> None:
        """Ask for a response, under one key until it is whole; sometimes leave first, and not always come back."""
        body, key = good_body(self._server.model, self._chance), uuid4().hex
        if body["stream"] and self._chance.random() < 0.3:
            await self._answer(client, body, key, leave_after=self._chance.randint(1, 12))
            self._seen.counts["left"] += 1
            if self._chance.random() < 0.5:
                return
        clock = asyncio.get_running_loop().time
        begin, tries = clock(), 0
        while not (answer := await self._answer(client, body, key)).is_whole:
            tries += 1
            if answer.wait_s is None or clock() - begin > PATIENCE_S:
                self._seen.counts["given up"] += 1
                return
            await asyncio.sleep(answer.wait_s)
        self._seen.whole[answer.response_id] = answer.tokens
        self._seen.counts["whole, after retries" if tries else "whole, at once"] += 1
        self._answered.append((key, body, answer.response_id))

    async def _ask_once_more(self, client: httpx.AsyncClient) -> None:
        """Ask for what was answered already, under its key: the same response comes again."""
        key, body, response_id = self._chance.choice(self._answered)
        answer = await self._answer(client, body, key)
        if answer.is_whole:
            self._seen.counts["given again"] += 1
            if answer.response_id != response_id:
                self._seen.doubled.append(f"{response_id} and {answer.response_id}")

    async def _ask_badly(self, client: httpx.AsyncClient) -> None:
        bad = self._chance.choice(bad_requests(self._server.model))
        content = bad.body if isinstance(bad.body, str) else json.dumps(bad.body)
        headers = {"Content-Type": "application/json"}
        if bad.key is not None:
            headers["Authorization"] = f"Bearer {bad.key}"
        try:
            answer = await client.post(COMPLETIONS, content=content, headers=headers)
        except httpx.TransportError as error:
            self._seen.odd.append(f"bad request: {error!r}")
            return
        self._seen.counts["bad, refused"] += 1
        if answer.status_code != bad.status:
            self._refusal(answer, f"a request that should be {bad.status}")

    async def _answer(
        self, client: httpx.AsyncClient, body: dict[str, Any], key: str, leave_after: int | None = None
    ) -> _Answer:
        """Ask once; a stream is left after so many pieces of text."""
        try:
            async with client.stream("POST", COMPLETIONS, json=body, headers={"Idempotency-Key": key}) as got:
                if got.status_code != 200:
                    await got.aread()
                    return self._refusal(got, "a good request")
                if body["stream"]:
                    return await self._streamed(got.aiter_lines(), leave_after)
                whole = json.loads(await got.aread())
                return _Answer(whole["id"], whole["usage"]["completion_tokens"])
        except httpx.TransportError as error:
            self._seen.odd.append(f"a good request: {error!r}")
            return _Answer()

    async def _streamed(self, lines: AsyncIterator[str], leave_after: int | None) -> _Answer:
        """The events of a stream: whole with its `[DONE]`, cut where an error comes in its place."""
        response_id, tokens, pieces = "", 0, 0
        async for line in lines:
            if line == "data: [DONE]":
                return _Answer(response_id, tokens)
            if not line.startswith("data: "):
                continue
            try:
                chunk = json.loads(line.removeprefix("data: "))
            except ValueError as error:
                self._seen.odd.append(f"stream {response_id}: {error}: {line!r}")
                return _Answer()
            if "error" in chunk:
                self._seen.counts["cut"] += 1
                return _Answer()
            response_id = chunk["id"]
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            pieces += any(choice["text"] for choice in chunk["choices"])
            if leave_after is not None and pieces >= leave_after:
                return _Answer()
        self._seen.odd.append(f"stream {response_id} ended with neither an end nor an error")
        return _Answer()

    def _refusal(self, got: httpx.Response, what: str) -> _Answer:
        """An answer that is none: 429 and 503, and 409 of a key in use, which say when to come back."""
        try:
            code, wait = got.json()["error"]["code"], got.headers.get("Retry-After")
        except ValueError:  # Serve's own words, in the place of an ingress that was killed: odd, and asked again
            self._seen.odd.append(f"{what}: {got.status_code} {got.text[:200]!r} is no refusal of ours")
            return _Answer(wait_s=1.0)
        self._seen.counts[f"{got.status_code} {code}"] += 1
        if code == "idempotency_expired":  # whole and booked, while its caller was gone
            return _Answer(wait_s=None)
        if wait is None or not (got.status_code in {429, 503} or code == "idempotency_in_progress"):
            self._seen.odd.append(f"{what}: {got.status_code} {code}, Retry-After {wait}")
        return _Answer(wait_s=min(float(wait or 1), LONGEST_WAIT_S))
