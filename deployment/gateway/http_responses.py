"""The events of the responses to a request as its HTTP answer, whole or as server-sent events.

Knows no job, no limits and no idempotency.
"""

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi.responses import JSONResponse, Response, StreamingResponse

from deployment.errors import InternalError
from deployment.gateway.choices import Told
from deployment.gateway.envelopes import WholeText, Wire
from deployment.gateway.keep_alive import KEEP_ALIVE, or_silence
from deployment.replica.messages import Admitted, Delta, Failed, Finished

# Lines of an event stream end at CR and LF alone, but clients that split text as Python does (`str.splitlines`, and so
# httpx' `iter_lines`) end one at these too, in the middle of an event. JSON may spell them so (RFC 8259, section 7).
_LINE_ENDS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"}


async def respond(
    events: AsyncGenerator[Told, None], wire: Wire, *, is_stream: bool, keep_alive_s: float | None = None
) -> Response:
    """The answer that is made of events: whole, or begun with the first of them.

    Raises:
        ApiError: there is none, and nothing of it was sent.
    """
    if not is_stream:
        return JSONResponse(wire.whole_body(await _collect(events, wire.choices)))
    first = await anext(events)  # awaited here, so that a refusal still has a status of its own
    if isinstance(first.event, Failed):
        await events.aclose()
        raise first.event.error()
    stream = _server_sent(wire, first, events, keep_alive_s)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _collect(events: AsyncGenerator[Told, None], number: int) -> list[WholeText]:
    """The whole texts and their ends; on failure nothing of any text is given away."""
    deltas: list[list[Delta]] = [[] for _ in range(number)]
    ends: dict[int, Finished] = {}
    async with aclosing(events):
        async for told in events:
            match told.event:
                case Delta():
                    deltas[told.index].append(told.event)
                case Finished():
                    ends[told.index] = told.event
                case Failed():
                    raise told.event.error()
            if len(ends) == number:
                return [WholeText.of(deltas[index], ends[index]) for index in range(number)]
    raise InternalError("the model stopped without an end", code="internal_error")


async def _server_sent(
    wire: Wire,
    first: Told,
    events: AsyncGenerator[Told, None],
    keep_alive_s: float | None,
) -> AsyncIterator[str]:
    """The response as server-sent events, begun at once, whenever its first token comes.

    Every event is awaited, so a disconnect cancels the job at the next one.
    """
    chunks = _Chunks(wire)
    async with aclosing(events), aclosing(or_silence(first, events, keep_alive_s)) as all_told:
        opening = [_data(body) for body in wire.opening_chunks()]
        for chunk in opening or [KEEP_ALIVE] * isinstance(first.event, Admitted):
            yield chunk
        async for told in all_told:
            if told is None:
                yield KEEP_ALIVE
                continue
            for body in chunks.of(told):
                yield _data(body)
            if chunks.is_over:
                yield "data: [DONE]\n\n"


class _Chunks:
    """The bodies of one stream, as the events of its responses come."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._ends: dict[int, Finished] = {}
        self._lengths = Counter[int]()  # characters of each response so far

    @property
    def is_over(self) -> bool:
        """Whether every response ended."""
        return len(self._ends) == self._wire.choices

    def of(self, told: Told) -> Iterator[Mapping[str, Any]]:
        """What is sent when that is told."""
        match told.event:
            case Delta():
                yield self._delta(told.index, told.event)
            case Failed():
                yield told.event.error().body()
            case Finished():
                self._ends[told.index] = end = told.event
                if end.text or end.logprobs or end.token_ids is not None:
                    yield self._delta(told.index, Delta(end.text, end.logprobs, end.token_ids))
                yield from self._wire.closing_chunks(told.index, end)
                if self.is_over:
                    yield from self._wire.usage_chunks([end for _, end in sorted(self._ends.items())])

    def _delta(self, index: int, piece: Delta) -> Mapping[str, Any]:
        offset = self._lengths[index]
        self._lengths[index] += len(piece.text)
        return self._wire.delta(index, piece, offset)


def _data(body: Mapping[str, Any]) -> str:
    document = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"data: {document.translate(_LINE_ENDS)}\n\n"
