"""How many responses an application has under way at once, and when one of them is likely to end. Knows no HTTP.

Each ingress counts its own; with several, an application may have as many times as many.
"""

import math
import threading
from collections.abc import Callable, Sequence

from deployment.errors import InvalidRequestError, OverloadedError

LONGEST_WAIT_S = 60
"""More than this nobody is told to wait: how long responses take changes."""
_NEWS = 0.2
"""How much the last response counts in how long one usually takes."""


class Concurrency:
    """The responses of one application that are under way; usable from several threads.

    Args:
        most: how many there may be.
        clock: seconds that never go back.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: dict[str, float] = {}  # response id -> since when; the oldest first
        self._usual_s: float | None = None

    def begin(self, response_ids: Sequence[str]) -> None:
        """These are under way from now on, all of them or none.

        Raises:
            OverloadedError: there are too many; `retry_after_s` says when enough of them are likely to have ended.
            InvalidRequestError: they would be too many by themselves.
        """
        if len(response_ids) > self._most:
            raise InvalidRequestError(
                f"n is {len(response_ids)}; this key may have {self._most} responses under way at once",
                param="n",
                code="invalid_value",
            )
        with self._lock:
            excess = len(self._begun) + len(response_ids) - self._most
            if excess > 0:
                wait_s = self._wait_s(excess)
                raise OverloadedError(
                    f"this key may have {self._most} responses under way at once; try again in {wait_s} s",
                    code="concurrency_limit_exceeded",
                    retry_after_s=wait_s,
                )
            self._begun |= dict.fromkeys(response_ids, self._clock())

    def give_back(self, response_ids: Sequence[str]) -> None:
        """Of these nothing came."""
        for response_id in response_ids:
            self.end(response_id, is_whole=False)

    def end(self, response_id: str, *, is_whole: bool) -> None:
        """A response is under way no more. Only one that had an end tells how long one takes."""
        with self._lock:
            seconds = self._clock() - self._begun.pop(response_id)
            if is_whole:
                usual_s = seconds if self._usual_s is None else self._usual_s
                self._usual_s = usual_s + _NEWS * (seconds - usual_s)

    def _wait_s(self, number: int) -> int:
        """In how many seconds so many are likely to have ended; before any did, each takes twice what it has taken."""
        age_s = self._clock() - sorted(self._begun.values())[number - 1]
        left_s = age_s if self._usual_s is None else self._usual_s - age_s
        return max(1, min(LONGEST_WAIT_S, math.ceil(left_s)))
