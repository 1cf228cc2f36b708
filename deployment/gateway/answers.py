"""From a job to its HTTP answer, whole or streamed: limits, idempotency, and what the application is told of the end.

Knows what an engine promises, and no model; knows no route.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from fastapi.responses import JSONResponse, Response, StreamingResponse

from deployment.access.limits import Limits, Ticket
from deployment.errors import InternalError, SpoolError
from deployment.gateway.idempotency import Attempt, EarlierResponse, Idempotency, request_hash
from deployment.gateway.silence import KEEP_ALIVE, or_silence
from deployment.gateway.wire import ChatWire, TextWire, Wire
from deployment.kept.replays import Replay
from deployment.kept.texts import KeptText, Texts
from deployment.replica.messages import Admitted, Delta, Event, Failed, Finished, Job, ModelCard
from deployment.schemas.requests import ChatRequest, CompletionRequest
from rewards.keys.rules import Key

_LOG = logging.getLogger(__name__)
_MOST_PROMISED = 10_000

_Request = ChatRequest | CompletionRequest


class Engine(Protocol):
    """What the ingress asks of the replicas."""

    async def describe(self) -> ModelCard:
        """What is served."""

    async def check(self) -> None:
        """Return when a replica answers.

        Raises:
            UnavailableError: none does.
        """

    async def count_replicas(self) -> int | None:
        """How many replicas run; None where nobody can say."""

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response: any number of `Delta`, then one `Finished` or `Failed`. Closing it cancels.

        A stream may begin with `Admitted`, after which it is refused no more, and may wait for its first token.
        """


class Answers:
    """Makes the answers of one ingress.

    Args:
        engine: makes the responses.
        limits: what each key may ask for.
        idempotency: whether a response was made before.
        default_max_tokens: the most tokens of a request that does not say.
        texts: where finished texts are kept for the console; None keeps none.
        keep_alive_s: after how many seconds without an event a stream sends a comment; 0 sends none.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        idempotency: Idempotency,
        default_max_tokens: int,
        texts: Texts | None = None,
        keep_alive_s: float = 0.0,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._idempotency = idempotency
        self._default_max_tokens = default_max_tokens
        self._texts = texts
        self._keep_alive_s = keep_alive_s or None
        self._promised: dict[str, str] = {}  # response id -> application, of receipts that were only spooled

    def is_promised(self, response_id: str, application: str) -> bool:
        """Whether the receipt of a response of this application may still be on its way to the ledger."""
        return self._promised.get(response_id) == application

    async def answer(self, caller: Key, job: Job, request: _Request, idempotency_key: str | None) -> Response:
        """The answer to a request, made now, or made before when it is the same under the same key.

        Raises:
            ApiError: there is none, and nothing of it was sent.
        """
        if idempotency_key is None:
            return await self._make(caller, job, request, None)
        route = "chat/completions" if isinstance(request, ChatRequest) else "completions"
        begun = await self._idempotency.begin(job, idempotency_key, request_hash(route, request.model_dump()))
        return await (
            self._make(caller, job, request, begun) if isinstance(begun, Attempt) else _repeat(begun, request)
        )

    async def _make(self, caller: Key, job: Job, request: _Request, attempt: Attempt | None) -> Response:
        """A response made now: within the limits, and then claimed, so that who is refused leaves no claim behind."""
        ticket = None
        try:
            most = job.max_tokens if job.max_tokens is not None else self._default_max_tokens
            ticket = await asyncio.to_thread(self._limits.admit, caller, most, job.response_id)
            earlier = None if attempt is None else await attempt.claim()
        except BaseException:
            if ticket is not None:
                ticket.end(0)
            if attempt is not None:
                attempt.close()
            raise
        if earlier is not None:
            ticket.end(0)
            return await _repeat(earlier, request)
        wire = _wire(job.response_id, job.created_at_us, request)
        events = self._watch(job, request.model, ticket, attempt)
        return await _respond(events, wire, request, self._keep_alive_s)

    async def _watch(
        self, job: Job, model: str, ticket: Ticket, attempt: Attempt | None
    ) -> AsyncGenerator[Event, None]:
        """The events of a response; its limits and its claim are settled by the time its end is passed on."""
        pieces: list[str] = []
        tokens = 0
        try:
            made = self._engine.generate(job)
            async with aclosing(made if attempt is None else attempt.follow(made)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        tokens += 1  # at least: the receipt will tell
                        if attempt is not None or self._texts is not None:
                            pieces.append(event.text)
                    elif isinstance(event, Finished):
                        tokens = event.completion_tokens
                        self._promise(job, event)
                        await self._keep(job, model, pieces, event)
                        if attempt is not None:
                            await attempt.finish(pieces, event)
                    elif isinstance(event, Failed) and not event.is_open:
                        tokens = tokens if event.credited else 0
                        if attempt is not None:
                            await attempt.fail()
                    yield event
        finally:
            ticket.end(tokens)
            if attempt is not None:
                attempt.close()

    async def _keep(self, job: Job, model: str, pieces: Sequence[str], end: Finished) -> None:
        """Keep a finished text where texts are kept; where the disk refuses, the answer is given all the same."""
        if self._texts is None:
            return
        try:
            await asyncio.to_thread(self._texts.keep, KeptText.of(job, model, "".join(pieces) + end.text, end))
        except SpoolError as error:
            _LOG.error("the text of response %s is not kept: %s", job.response_id, error)

    def _promise(self, job: Job, end: Finished) -> None:
        if end.booked:
            return
        if len(self._promised) >= _MOST_PROMISED:
            del self._promised[next(iter(self._promised))]
        self._promised[job.response_id] = job.application


async def _repeat(earlier: EarlierResponse, request: _Request) -> Response:
    """A response that was made before, given again."""
    wire = _wire(earlier.response_id, earlier.replay.created_at_us, request)
    response = await _respond(_replay_events(earlier.replay), wire, request)
    response.headers["Idempotency-Replayed"] = "true"
    return response


async def _replay_events(replay: Replay) -> AsyncGenerator[Event, None]:
    for piece in replay.pieces:
        yield Delta(piece)
    yield replay.end


def _wire(response_id: str, created_at_us: int, request: _Request) -> Wire:
    kind = ChatWire if isinstance(request, ChatRequest) else TextWire
    return kind(response_id, created_at_us // 1_000_000, request.model, request.attribution, request.wants_usage)


async def _respond(
    events: AsyncGenerator[Event, None], wire: Wire, request: _Request, keep_alive_s: float | None = None
) -> Response:
    if not request.stream:
        text, end = await _collect(events)
        return JSONResponse(wire.whole_body(text, end))
    first = await anext(events)  # awaited here, so that a refusal still has a status of its own
    if isinstance(first, Failed):
        await events.aclose()
        raise first.error()
    stream = _server_sent(wire, first, events, keep_alive_s)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _collect(events: AsyncGenerator[Event, None]) -> tuple[str, Finished]:
    """The whole text and the end of a response; on failure nothing of the text is given away."""
    pieces: list[str] = []
    async with aclosing(events):
        async for event in events:
            match event:
                case Delta():
                    pieces.append(event.text)
                case Finished():
                    return "".join(pieces) + event.text, event
                case Failed():
                    raise event.error()
    raise InternalError("the model stopped without an end", code="internal_error")


async def _server_sent(
    wire: Wire,
    first: Event,
    events: AsyncGenerator[Event, None],
    keep_alive_s: float | None,
) -> AsyncIterator[str]:
    """The response as server-sent events, begun at once, whenever its first token comes.

    Every event is awaited, so a disconnect cancels the job at the next one.
    """
    async with aclosing(events), aclosing(or_silence(first, events, keep_alive_s)) as told:
        opening = [_data(body) for body in wire.opening_chunks()]
        for chunk in opening or [KEEP_ALIVE] * isinstance(first, Admitted):
            yield chunk
        async for event in told:
            match event:
                case None:
                    yield KEEP_ALIVE
                case Delta():
                    yield _data(wire.delta(event.text))
                case Failed():
                    yield _data(event.error().body())
                case Finished():
                    if event.text:
                        yield _data(wire.delta(event.text))
                    for body in wire.closing_chunks(event):
                        yield _data(body)
                    yield "data: [DONE]\n\n"
                case Admitted():
                    continue


def _data(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'), allow_nan=False)}\n\n"
