"""The events of one response on their way from the worker's thread to the event loop that sends them.

The first piece of text goes at once. What comes while the one before it is still being sent goes with the next: a
caller as slow as that gets fewer pieces and the same text, and costs the service less. Knows no Ray and no HTTP.
"""

import asyncio
import threading

from deployment.replica.messages import Delta, Event, Finished


class EventStream:
    """Takes events from any thread, and gives them in one event loop.

    Args:
        loop: where `take` is awaited.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._is_told = False  # the loop was woken for what is here
        self._arrived = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event; text that nobody took yet becomes one piece with what follows it.

        Raises:
            RuntimeError: the loop is closed.
        """
        with self._lock:
            last = self._events[-1] if self._events else None
            if isinstance(last, Delta) and isinstance(event, Delta | Finished):
                self._events[-1] = event.after(last)
            else:
                self._events.append(event)
            is_told, self._is_told = self._is_told, True
        if not is_told:
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self) -> Event:
        """The next event, waited for."""
        await self._arrived.wait()
        with self._lock:
            event = self._events.pop(0)
            if not self._events:
                self._is_told = False
                self._arrived.clear()
        return event
