"""How fast and how much each application may ask: requests a minute, and tokens in the life of its key.

Each ingress counts requests, and tokens under way, for itself; what was generated is read from the ledger, which knows
of all of them. Knows nothing of HTTP.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Self

from deployment.errors import OverloadedError, QuotaError, UnavailableError
from rewards import Key, Ledger, LedgerError
from rewards.usage import tokens_of

__all__ = ["Limits", "Ticket"]

SUM_S = 2.0
"""How old the sum of a key's tokens may be: short against a response, so that several ingresses overspend little."""
RETRY_AFTER_S = 5

_LOG = logging.getLogger(__name__)

Clock = Callable[[], float]


class Ticket:
    """Leave to generate once. Its tokens stay reserved until `end`, or the end of its `with`."""

    def __init__(self, end: Callable[[int], None] | None = None) -> None:
        self._end = end

    def end(self, tokens: int) -> None:
        """Give back the reserved tokens, but for those that were generated. Only the first call counts."""
        end, self._end = self._end, None
        if end is not None:
            end(tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(0)


class Limits:
    """The limits of every key, usable from several threads.

    Args:
        ledger: where the tokens of a key are booked.
        clock: seconds that never go back.
    """

    def __init__(self, ledger: Ledger, clock: Clock = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._rates: dict[str, _Rate] = {}
        self._budgets: dict[str, _Budget] = {}

    def admit(self, key: Key, max_tokens: int) -> Ticket:
        """Leave for one request that generates at most `max_tokens`. May read the ledger, so not for an event loop.

        Raises:
            OverloadedError: the key asks too often; `retry_after_s` says when it may again.
            QuotaError: what is left of its token budget does not cover `max_tokens`.
            UnavailableError: the ledger is away, and what the key has generated was never read.
        """
        if key.requests_per_minute is not None:
            with self._lock:
                rate = self._rates.setdefault(key.key_id, _Rate(key.requests_per_minute, self._clock))
                rate.take()
        if key.token_budget is None:
            return Ticket()
        with self._lock:
            budget = self._budgets.setdefault(key.key_id, _Budget(key, key.token_budget, self._ledger, self._clock))
        budget.reserve(max_tokens)
        return Ticket(lambda tokens: budget.end(max_tokens, tokens))


class _Rate:
    """A bucket that holds a minute's requests and fills evenly. Not thread-safe."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._at = clock()

    def take(self) -> None:
        """Take one request out, or raise OverloadedError."""
        now = self._clock()
        self._level = min(self._per_minute, self._level + (now - self._at) * self._per_minute / 60)
        self._at = now
        if self._level < 1:
            wait_s = math.ceil((1 - self._level) * 60 / self._per_minute)
            raise OverloadedError(
                f"this key may ask {self._per_minute} times a minute; try again in {wait_s} s",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
            )
        self._level -= 1


class _Budget:
    """The tokens of one key: booked, as far as was read; reserved; and ended, but perhaps not yet in what was read."""

    def __init__(self, key: Key, most: int, ledger: Ledger, clock: Clock) -> None:
        self._key_id = key.key_id
        self._most = most
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._booked = 0
        self._sequence: int | None = None  # up to which receipt `_booked` counts; None before the first reading
        self._asked_at = -math.inf
        self._away = False
        self._reserved = 0
        self._ended = 0

    def reserve(self, tokens: int) -> None:
        """Reserve tokens, or raise QuotaError."""
        self._refresh()
        with self._lock:
            spent = self._booked + self._ended
            if spent + self._reserved + tokens > self._most:
                raise QuotaError(
                    f"the token budget of this key is {self._most}: {spent} are spent and {self._reserved} are under "
                    f"way, which leaves too few for the {tokens} that this request may generate",
                    code="insufficient_quota",
                    should_retry=False,
                )
            self._reserved += tokens

    def end(self, reserved: int, generated: int) -> None:
        """Give a reservation back; what was generated is booked by now, or waits in a spool until it is."""
        with self._lock:
            self._reserved -= reserved
            self._ended += generated

    def _refresh(self) -> None:
        """Read what was booked since, where something ended or the last reading is old; while away, that one counts."""
        with self._reading:
            now = self._clock()
            with self._lock:
                ended = self._ended
                if now - self._asked_at <= SUM_S and (self._away or not ended):
                    return
                self._asked_at = now
            try:
                with self._ledger.database.read() as connection:
                    tokens, sequence = tokens_of(connection, self._key_id, self._sequence or 0)
            except LedgerError as error:
                self._away = True
                _LOG.warning("the tokens of key %s could not be read: %s", self._key_id, error)
                if self._sequence is None:
                    raise UnavailableError(
                        "the ledger is away, and the token budget of this key cannot be read",
                        code="ledger_unavailable",
                        retry_after_s=RETRY_AFTER_S,
                    ) from error
                return
            with self._lock:
                self._away = False
                self._booked += tokens
                self._sequence = sequence
                self._ended -= ended
