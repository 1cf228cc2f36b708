"""`Idempotency-Key`: a request that is sent again gets the response of the first time, or is told why it cannot.

The claim of a key stands in the ledger's database, so that all ingresses agree; the text of the answer is kept for a
while on this disk. A response that was cut after tokens were delivered counts as no answer: its credited part stays, as
those tokens were seen, and the same key may ask again, as the application still lacks its answer. Knows no HTTP.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from deployment.errors import (
    ConflictError,
    InvalidRequestError,
    SpoolError,
    UnavailableError,
    UnprocessableError,
)
from deployment.messages import Finished, Job
from deployment.replays import Replay, Replays
from rewards import LedgerError
from rewards.claims import Claim, Claims
from rewards.errors import ReusedKeyError

__all__ = ["Attempt", "Idempotency", "Repeated", "checked_key", "request_hash"]

_LOG = logging.getLogger(__name__)
HEADER = "Idempotency-Key"
_KEY_LENGTH = 255
HERE_RETRY_AFTER_S = 1
ELSEWHERE_RETRY_AFTER_S = 5
RELEASE_PATIENCE_S = 1.0


def checked_key(given: Sequence[str]) -> str | None:
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
class Repeated:
    """The response that a key stands for, to be given again."""

    response_id: str
    replay: Replay


class Idempotency:
    """The keys of one ingress. Lives in one event loop; what waits for disk or database runs in its threads."""

    def __init__(self, claims: Claims, replays: Replays) -> None:
        self._claims = claims
        self._replays = replays
        self._running: dict[tuple[str, str], str] = {}  # (application, key's hash) -> request's hash
        self._unreleased: set[str] = set()  # response ids whose claims the database would not take back yet

    async def begin(self, job: Job, key: str, request_sha256: str) -> "Attempt | Repeated":
        """The right to make a job's response, or the response that was made for the same request before.

        Raises:
            UnprocessableError: the key was used for another request.
            ConflictError: the response is being made, or its text is no longer here.
            UnavailableError: the ledger's database is away, so nobody knows whether it was made.
        """
        mine = (job.application, sha256(key.encode()).hexdigest())
        running = self._running.get(mine)
        if running is not None:
            raise _in_progress(HERE_RETRY_AFTER_S) if running == request_sha256 else _reused()
        self._running[mine] = request_sha256
        attempt = Attempt(self, mine, job)
        claim = await self._claim(attempt, request_sha256)
        if claim.is_new:
            return attempt
        self.forget(attempt)
        found = await asyncio.to_thread(self._replays.find, claim.response_id)
        if found is not None:
            return Repeated(claim.response_id, found)
        raise _in_progress(ELSEWHERE_RETRY_AFTER_S) if claim.receipt_sha256 is None else _expired(claim)

    async def _claim(self, attempt: "Attempt", request_sha256: str) -> Claim:
        application, key_sha256 = attempt.key
        response_id = attempt.job.response_id

        def claim() -> Claim:
            self._release_left()
            return self._claims.claim(
                application, key_sha256, request_sha256, response_id, abandoned_after_s=self._replays.window_s
            )

        made = asyncio.get_running_loop().run_in_executor(None, claim)
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:  # nobody waits for the response any more, and the claim is on its way
            made.add_done_callback(lambda _: self.release(attempt))
            raise
        except LedgerError as error:
            self._unreleased.add(response_id)  # an answer that was lost may have been a yes
            self.forget(attempt)
            raise UnavailableError(
                f"the ledger is away, and whether this {HEADER} was used cannot be known; try again",
                code="ledger_unavailable",
                retry_after_s=ELSEWHERE_RETRY_AFTER_S,
            ) from error
        except ReusedKeyError as error:
            self.forget(attempt)
            raise _reused() from error
        except BaseException:
            self.forget(attempt)
            raise

    async def keep(self, attempt: "Attempt", pieces: Sequence[str], end: Finished) -> None:
        """Keep a finished response to be given again; where the disk refuses, it is given only this once."""
        replay = Replay(attempt.job.created_at_us, tuple(pieces), end)
        try:
            await asyncio.to_thread(self._replays.keep, attempt.job.response_id, replay)
        except SpoolError:
            _LOG.exception("response %s cannot be given a second time", attempt.job.response_id)

    def release(self, attempt: "Attempt") -> "asyncio.Future[None]":
        """Let another attempt be made, and only then forget that this one runs."""
        released = asyncio.get_running_loop().run_in_executor(None, self._release, attempt.job.response_id)
        released.add_done_callback(lambda _: self.forget(attempt))
        return released

    def forget(self, attempt: "Attempt") -> None:
        """An attempt runs no more."""
        self._running.pop(attempt.key, None)

    def _release(self, response_id: str) -> None:
        self._unreleased.add(response_id)
        with suppress(LedgerError):  # before the next claim it is tried again
            self._release_left()

    def _release_left(self) -> None:
        for response_id in list(self._unreleased):
            self._claims.release(response_id)
            self._unreleased.discard(response_id)


class Attempt:
    """The right to make one response. Must be closed, whatever became of it."""

    def __init__(self, idempotency: Idempotency, key: tuple[str, str], job: Job) -> None:
        self.key = key
        self.job = job
        self._idempotency = idempotency
        self._is_over = False

    async def finished(self, pieces: Sequence[str], end: Finished) -> None:
        """There is a whole response, which its receipt and its text stand for from now on. Before its end is sent."""
        self._is_over = True
        try:
            await self._idempotency.keep(self, pieces, end)
        finally:
            self._idempotency.forget(self)

    async def failed(self) -> None:
        """There is none. On return the key may be used for another attempt, unless the database is away."""
        self._is_over = True
        await asyncio.wait([self._idempotency.release(self)], timeout=RELEASE_PATIENCE_S)

    def close(self) -> None:
        """Nothing more comes of it. Where it was broken off, the key may be used for another attempt soon."""
        if not self._is_over:
            self._is_over = True
            self._idempotency.release(self)


def _reused() -> UnprocessableError:
    return UnprocessableError(
        f"this {HEADER} was used for another request; a new request needs a new key",
        param=HEADER,
        code="idempotency_key_reused",
    )


def _in_progress(retry_after_s: int) -> ConflictError:
    return ConflictError(
        f"the response to this {HEADER} is being made; try again for it",
        param=HEADER,
        code="idempotency_in_progress",
        retry_after_s=retry_after_s,
    )


def _expired(claim: Claim) -> ConflictError:
    return ConflictError(
        f"the response to this {HEADER} was made and credited, as response {claim.response_id} with receipt "
        f"{claim.receipt_sha256}; its text is no longer kept, and only a new key asks for a new response",
        param=HEADER,
        code="idempotency_expired",
        should_retry=False,
    )
