"""Keys checked for requests, in threads of their own: neither who guesses nor who writes takes those of other work.

Knows no HTTP and no role; what a recent answer is worth is told in `key_cache`.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from deployment.access.key_cache import KeyCache
from rewards.keys.ring import KeyRing
from rewards.keys.rules import Key

_THREADS = 4


class KeyChecks:
    """The keys of one gate. Lives in one event loop.

    Args:
        keys: where the use of a key is noted.
        check: who is asked, `KeyRing.check` of a whole key or `KeyRing.find_valid` of an id.
        clock: seconds that never go back.
    """

    def __init__(self, keys: KeyRing, check: Callable[[str], Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._cache = KeyCache(check, clock)
        self._checking = ThreadPoolExecutor(_THREADS, "protoken-keys")
        self._noting = ThreadPoolExecutor(1, "protoken-last-use")
        self._lock = threading.Lock()
        self._to_note: set[str] = set()

    async def find(self, presented: str) -> Key:
        """The valid key that was presented; that it was used is noted when the ledger has time for it.

        Raises:
            KeyRefusedError: there is none.
            LedgerError: the database is away, and it was not asked lately.
        """
        key = self._cache.recall(presented)
        if key is None:
            key = await asyncio.get_running_loop().run_in_executor(self._checking, self._cache.ask, presented)
            self._note(key)
        return key

    def _note(self, key: Key) -> None:
        """Have the use of a key noted, once however often it is asked while the ledger has no time."""
        with self._lock:
            if key.key_id in self._to_note:
                return
            self._to_note.add(key.key_id)
        self._noting.submit(self._write_use, key)

    def _write_use(self, key: Key) -> None:
        with self._lock:
            self._to_note.discard(key.key_id)
        self._keys.note_use(key)
