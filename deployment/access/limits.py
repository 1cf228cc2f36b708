"""How fast and how much each application may ask: requests a minute, responses at once, and tokens in its life.

They are the application's, whichever of its keys it has. A request for several responses counts as so many.
A token counts from when it was generated, wherever its receipt is: under way it is reserved, then it is counted here
until the ledger has it, and what waited in the spool at the start was read there. Each ingress counts so for itself,
and learns from the ledger what others booked: with several, as many may each spend what is left until that is booked.
Of a response whose caller left, what was generated and not delivered counts once it is booked. Knows nothing of HTTP.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

from deployment.access.concurrency import Concurrency
from deployment.errors import InvalidRequestError, OverloadedError, QuotaError, ledger_away
from rewards.errors import LedgerError
from rewards.keys.rules import Key
from rewards.ledger.ledger import Ledger
from rewards.ledger.usage import find_booked, names_of, tokens_of

SUM_S = 2.0
"""How old the sum of a key's tokens may be: short against a response, so that several ingresses overspend little."""

_ROUNDING = 1e-7
"""So much of a request may be owed: what a sum of seconds loses by rounding, as a time that was told must hold."""

_LOG = logging.getLogger(__name__)

Clock = Callable[[], float]


class Ticket:
    """A permission to generate one response. Its tokens stay reserved until `end` is called, or its `with` ends."""

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
    """The limits of every application, usable from several threads.

    Args:
        ledger: where the tokens of an application are booked.
        clock: seconds that never go back.
        spooled: application -> response id -> tokens, of what waited for the ledger when this began.
    """

    def __init__(
        self, ledger: Ledger, clock: Clock = time.monotonic, spooled: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._spooled = spooled or {}
        self._lock = threading.Lock()
        self._rates: dict[str, _Rate] = {}
        self._budgets: dict[str, _Budget] = {}
        self._under_way: dict[str, Concurrency] = {}

    def admit(self, key: Key, max_tokens: int, response_id: str) -> Ticket:
        """A ticket for one response of at most `max_tokens`; else as `admit_all`."""
        return self.admit_all(key, max_tokens, [response_id])[0]

    def admit_all(self, key: Key, max_tokens: int, response_ids: Sequence[str]) -> list[Ticket]:
        """A ticket for each of these responses of at most `max_tokens`. May read the ledger: not for an event loop.

        Raises:
            OverloadedError: the application asks too often, or for too much at once; `retry_after_s` says when it may.
            InvalidRequestError: they are more than the application may ever ask for at once.
            QuotaError: what is left of its token budget does not cover `max_tokens` for each.
            UnavailableError: the ledger is away, and what the application has generated was never read.
        """
        self.take(key, len(response_ids))
        concurrency, budget = self._concurrency(key), self._budget(key)
        if concurrency is not None:
            concurrency.begin(response_ids)
        try:
            if budget is not None:
                budget.reserve(max_tokens * len(response_ids))
        except BaseException:
            if concurrency is not None:
                concurrency.give_back(response_ids)
            raise

        def end(response_id: str, tokens: int) -> None:
            if concurrency is not None:
                concurrency.end(response_id, is_whole=tokens > 0)
            if budget is not None:
                budget.end(max_tokens, response_id, tokens)

        return [Ticket(partial(end, response_id)) for response_id in response_ids]

    def take(self, key: Key, requests: int = 1) -> None:
        """Count requests of a key, or raise as `admit_all`. Never waits."""
        if key.requests_per_minute is not None:
            with self._lock:
                self._rates.setdefault(key.identity, _Rate(key.requests_per_minute, self._clock)).take(requests)

    def _concurrency(self, key: Key) -> Concurrency | None:
        if key.concurrency is None:
            return None
        with self._lock:
            return self._under_way.setdefault(key.identity, Concurrency(key.concurrency, self._clock))

    def _budget(self, key: Key) -> "_Budget | None":
        if key.token_budget is None:
            return None
        with self._lock:
            return self._budgets.setdefault(
                key.identity, _Budget(key, key.token_budget, self._ledger, self._clock, self._spooled)
            )


class _Rate:
    """A bucket that holds a minute's requests and fills evenly. Not thread-safe."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._at = clock()

    def take(self, requests: int) -> None:
        """Take so many requests out, all or none, or raise as `Limits.admit_all`."""
        if requests > self._per_minute:
            raise InvalidRequestError(
                f"n is {requests}; this key may ask {self._per_minute} times a minute", param="n", code="invalid_value"
            )
        now = self._clock()
        self._level = min(self._per_minute, self._level + (now - self._at) * self._per_minute / 60)
        self._at = now
        if self._level < requests - _ROUNDING:
            wait_s = math.ceil((requests - _ROUNDING - self._level) * 60 / self._per_minute)
            raise OverloadedError(
                f"this key may ask {self._per_minute} times a minute; try again in {wait_s} s",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
            )
        self._level -= requests


class _Budget:
    """The tokens of one application: booked, as far as was read; generated, and not booked by then; and reserved."""

    def __init__(
        self, key: Key, most: int, ledger: Ledger, clock: Clock, spooled: Mapping[str, Mapping[str, int]]
    ) -> None:
        self._application = key.identity
        self._most = most
        self._ledger = ledger
        self._clock = clock
        self._spooled = spooled
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._booked = 0
        self._sequence: int | None = None  # up to which receipt `_booked` counts; None before the first reading
        self._asked_at = -math.inf
        self._away = False
        self._reserved = 0
        self._unbooked: dict[str, int] = {}  # response id -> tokens
        self._is_changed = False  # something ended since the last reading

    def reserve(self, tokens: int) -> None:
        """Reserve tokens, or raise QuotaError."""
        self._refresh()
        with self._lock:
            spent = self._booked + sum(self._unbooked.values())
            if spent + self._reserved + tokens > self._most:
                raise QuotaError(
                    f"the token budget of this key is {self._most}: {spent} are spent and {self._reserved} are under "
                    f"way, which leaves too few for the {tokens} that this request may generate",
                    code="insufficient_quota",
                    should_retry=False,
                )
            self._reserved += tokens

    def end(self, reserved: int, response_id: str, generated: int) -> None:
        """Give a reservation back; what was generated counts here until it is read in the ledger."""
        with self._lock:
            self._reserved -= reserved
            if generated:
                self._unbooked[response_id] = generated
                self._is_changed = True

    def _refresh(self) -> None:
        """Read what was booked since, where something ended or the last reading is old; while away, that one counts."""
        with self._reading:
            now = self._clock()
            with self._lock:
                if now - self._asked_at <= SUM_S and (self._away or not self._is_changed):
                    return
                self._asked_at, self._is_changed = now, False
            try:
                self._read()
                self._away = False
            except LedgerError as error:
                self._away = self._is_changed = True
                _LOG.warning("the tokens of application %s could not be read: %s", self._application, error)
                if self._sequence is None:
                    raise ledger_away("the ledger is away, and the token budget of this key cannot be read") from error

    def _read(self) -> None:
        """Add what was booked since the last reading, and forget what it is of that was counted as generated."""
        with self._lock:
            unbooked = set(self._unbooked)
        with self._ledger.database.read() as connection:
            if self._sequence is None:
                waiting = [self._spooled.get(name, {}) for name in names_of(connection, self._application)]
                waited = {response_id: tokens for each in waiting for response_id, tokens in each.items()}
            else:
                waited = {}
            booked = find_booked(connection, unbooked | waited.keys())
            tokens, sequence = tokens_of(connection, self._application, self._sequence or 0)
        with self._lock:
            self._booked += tokens
            self._sequence = sequence
            self._unbooked = {
                response_id: tokens
                for response_id, tokens in {**waited, **self._unbooked}.items()
                if response_id not in booked
            }
