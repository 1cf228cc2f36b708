"""`Idempotency-Key`: a request that is sent again gets the response of the first time, or is told why it cannot.

The claim of a key stands in the ledger's database, so that all ingresses agree; the text of the answer is kept for a
while on this disk. A claim ends by the receipt of its response, or when it is certain that none will come: nothing was
begun, or whoever was to make the response says that nothing of it is booked. An attempt of which nobody can say so
stands for its key for ever. A response that was cut after tokens were delivered counts as no answer: its credited part
stays, as those tokens were seen, and the same key may ask again, as the application still lacks its answer.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from deployment.errors import (
    RETRY_AFTER_S,
    ConflictError,
    InvalidRequestError,
    SpoolError,
    UnavailableError,
    UnprocessableError,
    ledger_away,
)
from deployment.gateway.async_claims import AsyncClaims, BusyError
from deployment.replica.messages import Admitted, Event, Failed, Finished, Job
from deployment.retention.replays import Replay, Replays
from rewards.errors import LedgerError, ReusedKeyError
from rewards.ledger.idempotency_claims import Claim, Claims

_LOG = logging.getLogger(__name__)
HEADER = "Idempotency-Key"
_KEY_LENGTH = 255
HERE_RETRY_AFTER_S = 1
RELEASE_PATIENCE_S = 1.0


def check_key(given: Sequence[str]) -> str | None:
    """The one key among the headers of a request, or None when there is none.

    Raises:
        InvalidRequestError: there are several, or it is not 1 to 255 printable characters.
    """
    if not given:
        return None
    if len(given) > 1 or not 1 <= len(given[0]) <= _KEY_LENGTH or not given[0].isprintable():
        raise InvalidRequestError(
            f"{HEADER} must be one header of 1 to {_KEY_LENGTH} printable characters",
            param=HEADER,
            code="invalid_value",
        )
    return given[0]


def request_hash(route: str, request: Any) -> str:
    """SHA-256 (hex) of a request as it was understood: its route and its body, whatever the order of the fields."""
    text = json.dumps([route, request], sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class EarlierResponse:
    """The response that a key stands for, to be given again."""

    response_id: str
    replay: Replay


class Idempotency:
    """The keys of one ingress. Lives in one event loop; what waits for disk or database runs in threads."""

    def __init__(self, claims: Claims, replays: Replays) -> None:
        self._claiming = AsyncClaims(claims)
        self._replays = replays
        self._running: dict[tuple[str, str], str] = {}  # (application, key's hash) -> request's hash
        self._following: set[asyncio.Task[None]] = set()

    async def begin(
        self, job: Job, key: str, request_sha256: str, *, is_alone: bool = True
    ) -> "Attempt | EarlierResponse":
        """An attempt that may claim the key, or the response that was made for the same request before.

        A key stands for the first response of its request, and that one `is_alone` or brings the others with it.

        Raises:
            UnprocessableError: the key was used for another request.
            ConflictError: the response is being made, or may have been; or its text is no longer here.
            UnavailableError: the ledger's database is away, so nobody knows whether it was made.
        """
        mine = (job.application, sha256(key.encode()).hexdigest())
        running = self._running.get(mine)
        if running is not None:
            raise _in_progress_error(HERE_RETRY_AFTER_S) if running == request_sha256 else _reused_error()
        self._running[mine] = request_sha256
        attempt = Attempt(self, mine, request_sha256, job, is_alone=is_alone)
        try:
            standing = await self._claiming.find(mine, request_sha256)
        except LedgerError as error:
            self.forget(attempt)
            raise _unknown() from error
        except ReusedKeyError as error:
            self.forget(attempt)
            raise _reused_error() from error
        except BaseException:
            self.forget(attempt)
            raise
        return attempt if standing is None else await self.find_earlier(attempt, standing)

    async def find_earlier(self, attempt: "Attempt", claim: Claim) -> EarlierResponse:
        """The response that another attempt made under the key; raises as `begin` where it cannot be given."""
        self.forget(attempt)
        replay = await asyncio.to_thread(self._replays.find, claim.response_id)
        if replay is not None:
            return EarlierResponse(claim.response_id, replay)
        if claim.receipt_sha256 is not None:
            raise _expired_error(claim)
        if time.time() - claim.created_at_us / 1e6 > self._replays.window_s:
            raise _unresolved_error(claim)
        raise _in_progress_error(RETRY_AFTER_S)

    async def claim(self, attempt: "Attempt") -> Claim:
        """Claim the key of an attempt, for which this waits a little; raises as `begin`."""
        try:
            return await self._claiming.claim(
                attempt.key, attempt.request_sha256, attempt.job.response_id, partial(self.forget, attempt)
            )
        except BusyError as error:
            why = f"the ledger is being written, and this {HEADER} cannot be noted in it; try again"
            raise ledger_away(why) from error
        except LedgerError as error:
            raise _unknown() from error
        except ReusedKeyError as error:
            raise _reused_error() from error

    async def keep(self, attempt: "Attempt", replay: Replay) -> None:
        """Keep a finished response to be given again; where the disk refuses, it is given only this once."""
        try:
            await asyncio.to_thread(self._replays.keep, attempt.job.response_id, replay)
        except SpoolError:
            _LOG.exception("response %s cannot be given a second time", attempt.job.response_id)

    def release(self, attempt: "Attempt") -> "asyncio.Future[None]":
        """Let another attempt be made, and only then forget that this one runs."""
        released = self._claiming.release(attempt.job.response_id)
        released.add_done_callback(lambda _: self.forget(attempt))
        return released

    def forget(self, attempt: "Attempt") -> None:
        """An attempt runs no more."""
        self._running.pop(attempt.key, None)

    def follow(self, attempt: "Attempt", events: AsyncGenerator[Event, None], first: "asyncio.Task[Event]") -> None:
        """Wait, in the caller's place, for the first event of a response, which tells what becomes of its claim."""
        task = asyncio.get_running_loop().create_task(self._follow(attempt, events, first))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _follow(
        self, attempt: "Attempt", events: AsyncGenerator[Event, None], first: "asyncio.Task[Event]"
    ) -> None:
        try:
            async with aclosing(events):  # after a token that cancels the job, and what it had is booked as cut
                event = await first
            if isinstance(event, Failed) and not event.is_open:
                await self.release(attempt)
            elif isinstance(event, Finished) and attempt.is_alone:
                await self.keep(attempt, Replay(attempt.job.created_at_us, (), event))
        finally:
            self.forget(attempt)


class Attempt:
    """The right to ask for one response, and once it is claimed to make it. Must be closed, whatever became of it."""

    def __init__(
        self, idempotency: Idempotency, key: tuple[str, str], request_sha256: str, job: Job, *, is_alone: bool
    ) -> None:
        self.is_alone = is_alone
        self.key = key
        self.request_sha256 = request_sha256
        self.job = job
        self._idempotency = idempotency
        self._is_claimed = False
        self._is_begun = False
        self._is_over = False

    async def claim(self) -> EarlierResponse | None:
        """Claim the key; the response of somebody who was faster, if there is one. Raises as `Idempotency.begin`."""
        try:
            claim = await self._idempotency.claim(self)
        except BaseException:
            self._is_over = True
            raise
        if not claim.is_new:
            self._is_over = True
            return await self._idempotency.find_earlier(self, claim)
        self._is_claimed = True
        return None

    async def follow(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """The events of the response, of which the first that tells is waited for even when the caller goes before it.

        Only then is it certain what becomes of the claim: a refusal frees it, and tokens have a receipt; that a job is
        admitted tells neither. Begun in a context of its own, as Serve cancels what is asked for within a request when
        its caller goes.
        """
        self._is_begun = True
        admitted = asyncio.Event()
        first = asyncio.get_running_loop().create_task(_first_telling_event(events, admitted), context=Context())
        hears = asyncio.ensure_future(admitted.wait())
        try:
            await asyncio.wait({first, hears}, return_when=asyncio.FIRST_COMPLETED)
            if admitted.is_set():
                yield Admitted()
            event = await asyncio.shield(first)
        except (asyncio.CancelledError, GeneratorExit):
            self._is_over = True
            self._idempotency.follow(self, events, first)
            raise
        finally:
            hears.cancel()
        async with aclosing(events):
            yield event
            async for event in events:
                yield event

    async def finish(self, replay: Replay) -> None:
        """There is a whole response, which its receipt and its text stand for from now on. Before its end is sent."""
        self._is_over = True
        try:
            await self._idempotency.keep(self, replay)
        finally:
            self._idempotency.forget(self)

    async def fail(self) -> None:
        """There is none. On return the key may be used for another attempt, unless the database is away."""
        self._is_over = True
        await asyncio.wait([self._idempotency.release(self)], timeout=RELEASE_PATIENCE_S)

    def close(self) -> None:
        """Nothing more comes of it here. What was begun stands for the key until its receipt tells; else it is free."""
        if self._is_over:
            return
        self._is_over = True
        if self._is_claimed and not self._is_begun:
            self._idempotency.release(self)
        else:
            self._idempotency.forget(self)


async def _first_telling_event(events: AsyncGenerator[Event, None], admitted: asyncio.Event) -> Event:
    """The first event that tells what became of a job; whether it was admitted is told as soon as it is known."""
    event = await anext(events)
    while isinstance(event, Admitted):
        admitted.set()
        event = await anext(events)
    return event


def _unknown() -> UnavailableError:
    return ledger_away(f"the ledger is away, and whether this {HEADER} was used cannot be known; try again")


def _unresolved_error(claim: Claim) -> ConflictError:
    return ConflictError(
        f"a response to this {HEADER} was begun, as {claim.response_id}, and no receipt of it is booked: it may be on "
        "its way, so that none is made twice; if it never comes, a new key asks for a new response",
        param=HEADER,
        code="idempotency_unresolved",
        retry_after_s=RETRY_AFTER_S,
        should_retry=False,
    )


def _reused_error() -> UnprocessableError:
    return UnprocessableError(
        f"this {HEADER} was used for another request; a new request needs a new key",
        param=HEADER,
        code="idempotency_key_reused",
    )


def _in_progress_error(retry_after_s: int) -> ConflictError:
    return ConflictError(
        f"the response to this {HEADER} is being made; try again for it",
        param=HEADER,
        code="idempotency_in_progress",
        retry_after_s=retry_after_s,
    )


def _expired_error(claim: Claim) -> ConflictError:
    return ConflictError(
        f"the response to this {HEADER} was made and credited, as response {claim.response_id} with receipt "
        f"{claim.receipt_sha256}; its text is no longer kept, and only a new key asks for a new response",
        param=HEADER,
        code="idempotency_expired",
        should_retry=False,
    )
