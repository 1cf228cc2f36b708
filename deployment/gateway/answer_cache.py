"""An answer that many want and that is asked for once: whoever comes while it is asked for waits for the same.

Lives in one event loop. Knows nothing of what is asked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from deployment.errors import UnavailableError

Value = TypeVar("Value")


class RecentAnswer(Generic[Value]):
    """The last answer, asked for again when it is too old for whoever wants it.

    Args:
        ask: gives the answer, or raises UnavailableError, which is an answer too.
        clock: seconds that never go back.
    """

    def __init__(self, ask: Callable[[], Awaitable[Value]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._asking: asyncio.Task[Value | UnavailableError] | None = None
        self._last: tuple[Value | UnavailableError, float] | None = None

    async def get(self, age_s: float) -> Value:
        """An answer that is at most so old.

        Raises:
            UnavailableError: that is the answer.
        """
        return _value_of(self._last[0] if self._is_within(age_s) and self._last else await self._ask_afresh())

    async def at_once(self, age_s: float, longest_s: float) -> Value:
        """The same; but a good answer that is not older than `longest_s` will do while a newer one is asked for."""
        answer = self._last and self._last[0]
        is_old = not self._is_within(age_s)
        if answer is None or isinstance(answer, UnavailableError) or not self._is_within(longest_s):
            return await self.get(age_s)
        if is_old:
            self._begin()
        return answer

    def _is_within(self, age_s: float) -> bool:
        return self._last is not None and self._clock() - self._last[1] <= age_s

    async def _ask_afresh(self) -> Value | UnavailableError:
        return await asyncio.shield(self._begin())  # whoever goes away takes the answer from nobody else

    def _begin(self) -> "asyncio.Task[Value | UnavailableError]":
        if self._asking is None or self._asking.done():
            # In a context of its own: Serve ends what was asked in that of a request when its caller goes away.
            self._asking = asyncio.get_running_loop().create_task(self._ask_once(), context=Context())
        return self._asking

    async def _ask_once(self) -> Value | UnavailableError:
        answer: Value | UnavailableError
        try:
            answer = await self._ask()
        except UnavailableError as error:
            answer = error
        self._last = answer, self._clock()
        return answer


def _value_of(answer: Value | UnavailableError) -> Value:
    if isinstance(answer, UnavailableError):
        raise answer
    return answer
