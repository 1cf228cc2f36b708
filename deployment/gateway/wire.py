"""OpenAI's envelopes, whole and streamed, for chat and for text completions, with attribution where SDKs keep it.

openai-python joins the chunks of a stream and keeps only what sits in `delta` (lists by their entries' `index`)
and in the usage chunk; so per-token attribution travels in `delta.attribution.content[]` and totals in
`usage.attribution`. Knows shapes only: no routes, no engine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deployment.replica.messages import Finished, TokenCredit
from deployment.schemas.requests import AttributionLevel
from deployment.schemas.responses import ClientShare, TokenAttribution, Usage, UsageAttribution

TOKENS_PER_CHUNK = 64

FinishReason = str | None
Body = dict[str, Any]


class Wire(Protocol):
    """How one response is put on the wire, whole or as the chunks of a stream."""

    def whole_body(self, text: str, end: Finished) -> Body:
        """The body of an answer that is not streamed."""

    def opening_chunks(self) -> Iterator[Body]:
        """Chunks that come before any text."""

    def delta(self, text: str) -> Body:
        """The chunk of one piece of text."""

    def closing_chunks(self, end: Finished) -> Iterator[Body]:
        """Chunks that come after the last text: attribution, finish reason, usage where it is wanted."""


@dataclass(frozen=True)
class _Head:
    """What every body of one response repeats: its id, time in seconds since 1970, model, and the level asked for.

    Where a stream ends in a chunk with the usage (`with_usage`), every chunk before it has a `usage` of null, as
    OpenAI's have.
    """

    response_id: str
    created: int
    model: str
    attribution: AttributionLevel
    with_usage: bool

    def body(self, kind: str, choices: list[Body], **rest: Any) -> Body:
        """One body of object type `kind`."""
        return {
            "id": self.response_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **rest,
        }

    def chunk(self, kind: str, choice: Body) -> Body:
        """One chunk of object type `kind` with one choice."""
        return self.body(kind, [choice], **({"usage": None} if self.with_usage else {}))

    def usage(self, end: Finished) -> Body:
        """Counts of tokens, with the booked credit when attribution was asked for."""
        usage = Usage(
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            total_tokens=end.prompt_tokens + end.completion_tokens,
        ).model_dump(exclude_unset=True)
        if self.attribution != "none":
            usage["attribution"] = _totals(end)
        return usage

    def attribution_chunks(self, end: Finished) -> Iterator[Body]:
        """`{"content": [...]}` for every TOKENS_PER_CHUNK tokens; none unless tokens were asked for."""
        if self.attribution != "tokens":
            return
        content = _content(end.tokens)
        for start in range(0, len(content), TOKENS_PER_CHUNK):
            yield {"content": content[start : start + TOKENS_PER_CHUNK]}

    def attribution_whole(self, end: Finished) -> Body:
        """The field `attribution` of a message or choice; nothing unless tokens were asked for."""
        return {"attribution": {"content": _content(end.tokens)}} if self.attribution == "tokens" else {}


def _totals(end: Finished) -> Body:
    summary = end.summary
    return UsageAttribution(
        receipt_id=summary.receipt_id,
        method=summary.method,
        shares=dict(summary.shares),
        base_share=summary.base_share,
        credit=dict(summary.credit),
        completeness_error=summary.completeness_error,
    ).model_dump()


def _content(tokens: Sequence[TokenCredit]) -> list[Body]:
    return [
        TokenAttribution(
            index=index,
            token=credit.token,
            token_id=credit.token_id,
            bytes=list(credit.token.encode()),
            clients=[
                ClientShare(client=client, share=share, score=credit.scores[client])
                for client, share in credit.shares.items()
            ],
            base_share=credit.base_share,
        ).model_dump()
        for index, credit in enumerate(tokens)
    ]


@dataclass(frozen=True)
class ChatWire(_Head):
    """Bodies of `/v1/chat/completions`."""

    def whole_body(self, text: str, end: Finished) -> Body:
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": text, "refusal": None, **self.attribution_whole(end)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.finish_reason}
        return self.body("chat.completion", [choice], usage=self.usage(end))

    def opening_chunks(self) -> Iterator[Body]:
        """The chunk that says who speaks."""
        yield self._chunk({"role": "assistant", "content": ""})

    def delta(self, text: str) -> Body:
        """The chunk of one piece of text."""
        return self._chunk({"content": text})

    def closing_chunks(self, end: Finished) -> Iterator[Body]:
        """Attribution in `delta`, then the finish reason, then usage in a chunk without choices."""
        for attribution in self.attribution_chunks(end):
            yield self._chunk({"attribution": attribution})
        yield self._chunk({}, end.finish_reason)
        if self.with_usage:
            yield self.body("chat.completion.chunk", [], usage=self.usage(end))

    def _chunk(self, delta: Body, finish_reason: FinishReason = None) -> Body:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self.chunk("chat.completion.chunk", choice)


@dataclass(frozen=True)
class TextWire(_Head):
    """Bodies of `/v1/completions`."""

    kind = "text_completion"

    def whole_body(self, text: str, end: Finished) -> Body:
        """The body of an answer that is not streamed."""
        return self.body(
            self.kind, [self._choice(text, end.finish_reason, **self.attribution_whole(end))], usage=self.usage(end)
        )

    def opening_chunks(self) -> Iterator[Body]:
        """Nothing: text completions have no speaker."""
        return iter(())

    def delta(self, text: str) -> Body:
        """The chunk of one piece of text."""
        return self.chunk(self.kind, self._choice(text))

    def closing_chunks(self, end: Finished) -> Iterator[Body]:
        """Attribution beside empty text, then the finish reason, then usage in a chunk without choices."""
        for attribution in self.attribution_chunks(end):
            yield self.chunk(self.kind, self._choice("", attribution=attribution))
        yield self.chunk(self.kind, self._choice("", end.finish_reason))
        if self.with_usage:
            yield self.body(self.kind, [], usage=self.usage(end))

    def _choice(self, text: str, finish_reason: FinishReason = None, **rest: Any) -> Body:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason, **rest}
