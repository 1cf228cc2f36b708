"""How long a stream may be silent, and what is done meanwhile: its application is sent comments, its replica is asked.

How often comments are sent is the setting `keep_alive_s`. Knows no replica and no HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from deployment.gateway.choices import Told

SILENCE_S = 1.0
"""How long a response may be silent before its replica is asked how it is."""
ANSWER_TIMEOUT_S = 4.0
"""How long a replica may take to say how it is; whoever waits for one that does not is told within five seconds."""
TRIES = 3
"""How often a replica that has begun a response may fail to say so; one that has not begun has one chance."""
KEEP_ALIVE = ": keep-alive\n\n"
"""A comment among server-sent events, which callers skip: there is an answer, it is only not there yet."""


async def or_silence(
    first: Told, events: AsyncGenerator[Told, None], silence_s: float | None
) -> AsyncGenerator[Told | None, None]:
    """The events as they come, to the last of them, and None whenever none came for so long."""
    event: Told | None = first
    while event is not None:
        yield event
        coming = asyncio.ensure_future(_next(events))
        try:
            while not (await asyncio.wait({coming}, timeout=silence_s))[0]:
                yield None
            event = coming.result()
        finally:
            if not coming.done():  # whoever listened has gone: the job is let go before its events are closed
                coming.cancel()
                await asyncio.wait({coming})


async def _next(events: AsyncIterator[Told]) -> Told | None:
    return await anext(events, None)
