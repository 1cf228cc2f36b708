"""Keys that were checked a moment ago: not every request asks the database, and few fail while it is away.

Only good keys are kept, so a refusal is never remembered, and who guesses pushes nobody out. Knows no HTTP and no role.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from rewards.errors import KeyRefusedError, LedgerError
from rewards.keys.rules import Key
from rewards.store.database import now_us

FRESH_S = 5.0
"""How old an answer may be while the database is there: in this time a revocation takes effect, at every ingress."""
AWAY_S = 60.0
"""How old it may be while the database is away: longer than a restart or a failover takes, and no more than that."""
MOST_KEYS = 10_000  # some hundred bytes each


@dataclass
class _CachedKey:
    key: Key
    checked_at: float
    ask_again_at: float


class KeyCache:
    """Checked keys by the hash of what was presented; usable from several threads.

    Args:
        check: who is asked, `KeyRing.check` of a whole key or `KeyRing.find_valid` of an id.
        clock: seconds that never go back.
    """

    def __init__(self, check: Callable[[str], Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._check = check
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, _CachedKey] = OrderedDict()

    def recall(self, presented: str) -> Key | None:
        """The key, if it was checked recently; None when the database is to be asked. Never waits.

        Of those who come when an answer gets old, the first is to ask, and the others do with the old one meanwhile.

        Raises:
            KeyRefusedError: it has expired since.
        """
        with self._lock:
            now = self._clock()
            answer = self._answers.get(_digest(presented))
            if answer is None or now - answer.checked_at > AWAY_S:
                return None
            if now >= answer.ask_again_at:
                answer.ask_again_at = now + FRESH_S
                return None
        return _require_unexpired(answer.key)

    def ask(self, presented: str) -> Key:
        """The key by the database or, where that is away, by its last answer.

        Raises:
            KeyRefusedError: it is no valid key.
            LedgerError: the database is away, and the last answer is too old, or there is none.
        """
        digest, asked_at = _digest(presented), self._clock()
        try:
            key = self._check(presented)
        except KeyRefusedError:
            with self._lock:
                self._answers.pop(digest, None)
            raise
        except LedgerError:
            with self._lock:
                answer = self._answers.get(digest)
            if answer is None or self._clock() - answer.checked_at > AWAY_S:
                raise
            return _require_unexpired(answer.key)
        with self._lock:
            self._answers[digest] = _CachedKey(key, asked_at, asked_at + FRESH_S)
            self._answers.move_to_end(digest)
            if len(self._answers) > MOST_KEYS:
                self._answers.popitem(last=False)
        return key


def _digest(presented: str) -> bytes:
    return sha256(presented.encode()).digest()  # so that no secret lies in memory for longer than a request


def _require_unexpired(key: Key) -> Key:
    if key.state(now_us()) == "expired":
        raise KeyRefusedError(f"the API key {key.key_id} has expired", "expired")
    return key
