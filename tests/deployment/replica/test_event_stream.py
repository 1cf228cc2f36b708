"""Events on their way to the event loop: nothing is lost or out of order, and text that waits is one piece."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.replica.event_stream import EventStream
from deployment.replica.messages import Admitted, Delta, Event, Failed, Finished, TokenIds, TokenLogprob

END = Finished("!", "stop", 3, 5, None, ())
PIECES = st.lists(st.tuples(st.text(max_size=3), st.integers(0, 2)), max_size=12)


def likely(text: str, number: int) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of so many tokens."""
    return tuple(TokenLogprob(text, (), -float(n)) for n in range(number))


async def all_of(events: EventStream) -> list[Event]:
    """Everything up to the end."""
    taken = [await events.take()]
    while not isinstance(taken[-1], Finished | Failed):
        taken.append(await events.take())
    return taken


def ids(*numbers: int, is_first: bool = False) -> TokenIds:
    """Ids of tokens, and of a prompt where they are the first."""
    return TokenIds(numbers, (7, 8) if is_first else None)


def told(events: list[Event]) -> tuple[Any, ...]:
    """Text, log-probabilities and ids of a response, in whatever pieces they came."""
    pieces = [event for event in events if isinstance(event, Delta | Finished)]
    parts = [piece.token_ids for piece in pieces if piece.token_ids is not None]
    return (
        "".join(piece.text for piece in pieces),
        sum((piece.logprobs for piece in pieces), ()),
        sum((part.ids for part in parts), ()),
        [part.prompt for part in parts if part.prompt is not None],
    )


@given(PIECES, st.sampled_from([END, replace(END, logprobs=likely("!", 1), token_ids=ids(9)), Failed(500, "no", "no")]))
def test_what_is_told_is_what_was_put(pieces: list[tuple[str, int]], end: Finished | Failed) -> None:
    """From another thread, as slow or quick as it may be: the same text, the same log-probabilities, one end."""
    deltas = [
        Delta(text, likely(text, number), ids(*range(number), is_first=not place) if number else None)
        for place, (text, number) in enumerate(pieces)
    ]
    put = [Admitted(), *deltas, end]

    async def run() -> list[Event]:
        events = EventStream(asyncio.get_running_loop())
        thread = threading.Thread(target=lambda: [events.put(event) for event in put])
        thread.start()
        taken = await all_of(events)
        thread.join()
        return taken

    taken = asyncio.run(run())

    assert told(put) == told(taken)
    assert (Admitted(), type(end)) == (taken[0], type(taken[-1]))


def test_text_that_nobody_took_yet_is_one_piece() -> None:
    """While the first piece is sent three come: they are sent together, and the end brings what came with it."""

    async def run() -> list[Event]:
        events = EventStream(asyncio.get_running_loop())
        events.put(Delta("a"))
        taken = [await events.take()]
        for text in "bcd":
            events.put(Delta(text))
        taken.append(await events.take())
        events.put(Delta("e"))
        events.put(END)
        return [*taken, *await all_of(events)]

    assert [Delta("a"), Delta("bcd"), replace(END, text="e!")] == asyncio.run(run())


def test_a_failure_takes_no_text_with_it() -> None:
    """What was generated before a failure is told before it."""

    async def run() -> list[Event]:
        events = EventStream(asyncio.get_running_loop())
        events.put(Delta("a"))
        events.put(Failed(500, "no", "no"))
        return await all_of(events)

    assert [Delta("a"), Failed(500, "no", "no")] == asyncio.run(run())


def test_whoever_puts_hears_that_nobody_can_take() -> None:
    """An event loop that is closed takes nothing."""
    loop = asyncio.new_event_loop()
    events = EventStream(loop)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        events.put(Delta("a"))
