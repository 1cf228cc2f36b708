"""From a job to its HTTP answer, whole or streamed: limits, idempotency, and what the application is told of the end.

Knows what an engine promises, and no model; knows no route.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from fastapi.responses import Response

from deployment.access.limits import Limits, Ticket
from deployment.errors import SpoolError
from deployment.gateway.choices import Told, events_of_all, jobs_of
from deployment.gateway.envelopes import wire_of
from deployment.gateway.http_responses import respond
from deployment.gateway.idempotency import Attempt, EarlierResponse, Idempotency, request_hash
from deployment.replica.messages import Delta, Event, Failed, Finished, Job, ModelCard
from deployment.retention.replays import Replay
from deployment.retention.texts import KeptText, Texts
from deployment.schemas.openai_requests import ChatRequest, CompletionRequest
from rewards.keys.rules import Key

_LOG = logging.getLogger(__name__)
_MOST_PROMISED = 10_000

_Request = ChatRequest | CompletionRequest


class Engine(Protocol):
    """What the ingress asks of the replicas."""

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are served, each by its consortium's id; those that do not answer too."""

    async def describe(self, name: str) -> ModelCard:
        """What is served under a name that is one of `names`.

        Raises:
            UnavailableError: no replica of it answers.
        """

    async def check(self, name: str) -> ModelCard:
        """The same, as a replica says now.

        Raises:
            UnavailableError: none does.
        """

    async def count_replicas(self) -> int | None:
        """How many replicas run, of all models; None where nobody can say."""

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response, by the model that the job names. Closing it cancels.

        They are any number of `Delta`, then one `Finished` or `Failed`. A stream may begin with `Admitted`, after which
        it is refused no more, and may wait for its first token.
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

    @property
    def keeps_texts(self) -> bool:
        """Whether finished texts are kept, with what each client earned by them."""
        return self._texts is not None

    def is_promised(self, response_id: str, application: str) -> bool:
        """Whether the receipt of a response of this application may still be on its way to the ledger."""
        return self._promised.get(response_id) == application

    async def answer(self, caller: Key, job: Job, request: _Request, idempotency_key: str | None) -> Response:
        """The answer to a request, made now, or made before when it is the same under the same key.

        Args:
            caller: whose key it came with.
            job: its first response; `request.n` says of how many.
            request: what is asked.
            idempotency_key: under which it may be repeated.

        Raises:
            ApiError: there is none, and nothing of it was sent.
        """
        jobs = jobs_of(job, request.n)
        if idempotency_key is None:
            return await self._make(caller, jobs, request, None)
        route = "chat/completions" if isinstance(request, ChatRequest) else "completions"
        sha256 = request_hash(route, request.understood)
        begun = await self._idempotency.begin(job, idempotency_key, sha256, is_alone=request.n == 1)
        return await (
            self._make(caller, jobs, request, begun) if isinstance(begun, Attempt) else _repeat(begun, request)
        )

    async def _make(self, caller: Key, jobs: Sequence[Job], request: _Request, attempt: Attempt | None) -> Response:
        """Responses made now: within the limits, and then claimed, so that who is refused leaves no claim behind."""
        tickets: list[Ticket] = []
        try:
            most = jobs[0].max_tokens if jobs[0].max_tokens is not None else self._default_max_tokens
            names = [job.response_id for job in jobs]
            tickets = await asyncio.to_thread(self._limits.admit_all, caller, most, names)
            earlier = None if attempt is None else await attempt.claim()
        except BaseException:
            for ticket in tickets:
                ticket.end(0)
            if attempt is not None:
                attempt.close()
            raise
        if earlier is not None:
            for ticket in tickets:
                ticket.end(0)
            return await _repeat(earlier, request)
        wire = wire_of(request, jobs[0].response_id, jobs[0].created_at_us)
        made = [_Made(job, ticket) for job, ticket in zip(jobs, tickets, strict=True)]
        events = self._watch_all(made, request.model, attempt)
        return await respond(events, wire, is_stream=request.stream, keep_alive_s=self._keep_alive_s)

    async def _watch_all(
        self, made: Sequence["_Made"], model: str, attempt: Attempt | None
    ) -> AsyncGenerator[Told, None]:
        """The events of the responses; their claim is settled by the time the last end is passed on.

        It is the first response's, which therefore is not let go before it is certain what becomes of it.
        """
        events = [self._watch(each, model, attempt if each is made[0] else None) for each in made]
        try:
            async with aclosing(events_of_all(events)) as all_told:
                async for each_told in all_told:
                    told = _with_credit(each_told, made)
                    if attempt is not None and all(each.end is not None for each in made):
                        await attempt.finish(_replay(made))
                    elif attempt is not None and isinstance(told.event, Failed) and not told.event.is_open:
                        await attempt.fail()
                    yield told
        finally:
            for each in made:  # also of what was closed before it began
                each.ticket.end(each.tokens)
            if attempt is not None:
                attempt.close()

    async def _watch(self, made: "_Made", model: str, attempt: Attempt | None) -> AsyncGenerator[Event, None]:
        """The events of a response; its limits are settled by the time its end is passed on."""
        job = made.job
        try:
            events = self._engine.generate(job)
            async with aclosing(events if attempt is None else attempt.follow(events)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        made.tokens += 1  # at least: the receipt will tell
                        made.deltas.append(event)
                    elif isinstance(event, Finished):
                        made.tokens, made.end = event.completion_tokens, event
                        self._promise(job, event)
                        await self._keep(job, model, [delta.text for delta in made.deltas], event)
                    elif isinstance(event, Failed) and not event.is_open:
                        made.tokens = made.tokens if event.credited else 0
                    yield event
        finally:
            made.ticket.end(made.tokens)

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


@dataclass
class _Made:
    """A response on its way: its job and ticket, what was told of it, and how many tokens of it count."""

    job: Job
    ticket: Ticket
    deltas: list[Delta] = field(default_factory=list)
    tokens: int = 0
    end: Finished | None = None


def _with_credit(told: Told, made: Sequence[_Made]) -> Told:
    """A failure of one response says so where tokens of another are credited, so that nobody asks again by itself."""
    if isinstance(told.event, Failed) and any(each.tokens for each in made):
        return replace(told, event=replace(told.event, credited=True))
    return told


def _replay(made: Sequence[_Made]) -> Replay:
    """Responses that all ended, as they may be given again: the first of them, with the others."""
    first, *others = (
        Replay(
            each.job.created_at_us,
            tuple(delta.text for delta in each.deltas),
            each.end,
            tuple(delta.logprobs for delta in each.deltas) if each.job.top_logprobs is not None else (),
            token_ids=tuple(delta.token_ids for delta in each.deltas) if each.job.with_token_ids else (),
        )
        for each in made
        if each.end is not None
    )
    return replace(first, others=tuple(others))


async def _repeat(earlier: EarlierResponse, request: _Request) -> Response:
    """A response that was made before, given again."""
    wire = wire_of(request, earlier.response_id, earlier.replay.created_at_us)
    response = await respond(_replay_events(earlier.replay), wire, is_stream=request.stream)
    response.headers["Idempotency-Replayed"] = "true"
    return response


async def _replay_events(replay: Replay) -> AsyncGenerator[Told, None]:
    for index, each in enumerate((replay, *replay.others)):
        for delta in each.deltas:
            yield Told(index, delta)
        yield Told(index, each.end)
