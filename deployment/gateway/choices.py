"""The responses that one request asks for (`n`): a job each, and their events as one stream, each with its index.

They begin together or not at all, as far as that is in anybody's hand: nothing is told before each was admitted, and
where one fails the others are let go. Knows no HTTP and no limits.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

from deployment.replica.messages import Admitted, Event, Failed, Finished, Job

_SEEDS = 2**64


@dataclass(frozen=True)
class Told:
    """An event of one of the responses of a request: of which, from 0."""

    index: int
    event: Event


def jobs_of(job: Job, number: int) -> list[Job]:
    """So many jobs of one request: each has an id, a receipt and random numbers of its own."""
    return [job, *(_another(job, index) for index in range(1, number))]


def _another(job: Job, index: int) -> Job:
    seed = None if job.seed is None else (job.seed + index + _SEEDS // 2) % _SEEDS - _SEEDS // 2
    return replace(job, response_id=f"{job.response_id}-{index}", seed=seed)


async def events_of_all(streams: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[Told, None]:
    """The events of all streams as they come, to the end of the last of them, or to the first that failed.

    Closing it closes them, whatever they are waiting for.
    """
    async with AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(aclosing(stream))
        merge = await stack.enter_async_context(aclosing(_merge(streams) if len(streams) > 1 else _alone(streams[0])))
        async for told in await stack.enter_async_context(aclosing(_together(merge, len(streams)))):
            yield told
            if isinstance(told.event, Failed):
                return


async def _alone(stream: AsyncGenerator[Event, None]) -> AsyncGenerator[Told, None]:
    async for event in stream:
        yield Told(0, event)


async def _merge(streams: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[Told, None]:
    coming = {asyncio.ensure_future(_next(stream)): index for index, stream in enumerate(streams)}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda each: coming[each]):
                index = coming.pop(task)
                event = task.result()
                if event is not None:
                    yield Told(index, event)
                if event is None or isinstance(event, Finished | Failed):
                    await streams[index].aclose()
                else:
                    coming[asyncio.ensure_future(_next(streams[index]))] = index
    finally:
        for task in coming:
            task.cancel()
        if coming:
            await asyncio.wait(coming)


async def _together(events: AsyncGenerator[Told, None], number: int) -> AsyncGenerator[Told, None]:
    """The events, from when each of so many responses had one: a refusal of one comes before any text of another."""
    begun: set[int] = set()
    held: list[Told] = []
    async for told in events:
        if len(begun) == number or isinstance(told.event, Failed):
            yield told
            continue
        begun.add(told.index)
        held.append(told)
        if len(begun) == number:
            for each in _one_admission(held):
                yield each


def _one_admission(held: Sequence[Told]) -> list[Told]:
    """That they are admitted is told once, and first."""
    rest = [told for told in held if not isinstance(told.event, Admitted)]
    return rest if len(rest) == len(held) else [Told(0, Admitted()), *rest]


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)
