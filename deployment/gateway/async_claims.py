"""Claims of idempotency keys made and released from an event loop, in threads of their own and with bounded patience.

They alone, of all that an application's request does, wait for whoever writes in the ledger. Knows no text, no job and
no header's name.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from rewards.errors import LedgerError
from rewards.ledger.idempotency_claims import Claim, Claims

CLAIM_PATIENCE_S = 2.0
"""How long a claim waits for whoever writes in the ledger."""
_THREADS = 4
_MOST_UNRELEASED = 10_000


class BusyError(Exception):
    """The ledger was being written for longer than a claim waits."""


class AsyncClaims:
    """The claims of one ingress. Lives in one event loop."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._threads = ThreadPoolExecutor(_THREADS, "protoken-claims")
        self._lock = threading.Lock()
        self._unreleased: OrderedDict[str, None] = OrderedDict()  # what the database would not take back yet

    async def find(self, key: tuple[str, str], request_sha256: str) -> Claim | None:
        """What stands for a key (application, and SHA-256 of what it sent). Waits for nobody; raises as `Claims`."""
        if self._unreleased:
            again = asyncio.get_running_loop().run_in_executor(self._threads, self._try_to_release)
            await asyncio.wait([again], timeout=CLAIM_PATIENCE_S)
        return await asyncio.to_thread(self._claims.find, *key, request_sha256)

    async def claim(
        self, key: tuple[str, str], request_sha256: str, response_id: str, free: Callable[[], None]
    ) -> Claim:
        """Claim a key for a response.

        Args:
            key: application, and SHA-256 of what it sent.
            request_sha256: of what is asked.
            response_id: of the response that would be made.
            free: called in the loop, where this raises, once nothing is claimed or it was given back.

        Raises:
            BusyError: somebody else writes in the ledger for too long.
            LedgerError, ReusedKeyError: as `Claims.claim`.
        """

        def claim() -> Claim:
            self._release_left()
            return self._claims.claim(*key, request_sha256, response_id)

        made = self._threads.submit(claim)
        answer = asyncio.wrap_future(made)
        try:
            await asyncio.wait([answer], timeout=CLAIM_PATIENCE_S)
        finally:  # also where the caller is cancelled
            if not answer.done():
                self._give_up(response_id, made, answer, free)
        if answer.cancelled() or not answer.done():
            raise BusyError
        try:
            return answer.result()
        except LedgerError:
            self._note(response_id)  # an answer that was lost may have been a yes
            free()
            raise
        except BaseException:
            free()
            raise

    def release(self, response_id: str) -> "asyncio.Future[None]":
        """Let another response be made for a key, now or, where the database is away, before the next claim."""
        return asyncio.get_running_loop().run_in_executor(self._threads, self._release, response_id)

    def _give_up(
        self, response_id: str, made: "Future[Claim]", answer: "asyncio.Future[Claim]", free: Callable[[], None]
    ) -> None:
        """Nobody waits for a claim any more: it is not made, or given back once it was."""
        if made.cancel():
            free()
            return

        def give_back(done: "asyncio.Future[Claim]") -> None:
            if not done.cancelled():
                done.exception()  # seen: made or not, it is released
            self.release(response_id).add_done_callback(lambda _: free())

        answer.add_done_callback(give_back)

    def _note(self, response_id: str) -> None:
        """That a claim is to be released before the next is made. Of too many the oldest stand for ever."""
        with self._lock:
            self._unreleased[response_id] = None
            if len(self._unreleased) > _MOST_UNRELEASED:
                self._unreleased.popitem(last=False)

    def _release(self, response_id: str) -> None:
        self._note(response_id)
        self._try_to_release()

    def _try_to_release(self) -> None:
        with suppress(LedgerError):  # before the next claim it is tried again
            self._release_left()

    def _release_left(self) -> None:
        with self._lock:
            left = list(self._unreleased)
        if left:
            self._claims.release(left)
        with self._lock:
            for response_id in left:
                self._unreleased.pop(response_id, None)
