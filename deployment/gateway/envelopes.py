"""OpenAI's envelopes, whole and streamed, for chat and for text completions, with attribution where SDKs keep it.

openai-python joins the chunks of a stream and keeps only what sits in `delta` (lists by their entries' `index`)
and in the usage chunk; so per-token attribution travels in `delta.attribution.content[]` and totals in
`usage.attribution`. Knows shapes only: no routes, no engine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

from deployment.gateway.logprobs import chat_logprobs, text_logprobs
from deployment.replica.messages import Delta, Finished, TokenCredit, TokenIds, TokenLogprob
from deployment.schemas.openai_requests import AttributionLevel, ChatRequest, CompletionRequest
from deployment.schemas.openai_responses import ClientShare, TokenAttribution, Usage, UsageAttribution

TOKENS_PER_CHUNK = 64

FinishReason = str | None
Body = dict[str, Any]


@dataclass(frozen=True)
class WholeText:
    """A response that ended: its text, its tokens' log-probabilities and ids where they were asked for, and its end."""

    text: str
    logprobs: tuple[TokenLogprob, ...]
    token_ids: TokenIds | None
    end: Finished

    @classmethod
    def of(cls, deltas: Sequence[Delta], end: Finished) -> "WholeText":
        """What was told piece by piece."""
        told: tuple[Delta | Finished, ...] = (*deltas, end)
        parts = [each.token_ids for each in told if each.token_ids is not None]
        ids = tuple(token for part in parts for token in part.ids)
        return cls(
            text="".join(each.text for each in told),
            logprobs=tuple(token for each in told for token in each.logprobs),
            token_ids=TokenIds(ids, parts[0].prompt) if parts else None,
            end=end,
        )


class Wire(Protocol):
    """How the responses of one request are put on the wire, whole or as the chunks of a stream."""

    @property
    def choices(self) -> int:
        """How many they are; each has an index from 0."""

    def whole_body(self, texts: Sequence[WholeText]) -> Body:
        """The body of an answer that is not streamed."""

    def opening_chunks(self) -> Iterator[Body]:
        """Chunks that come before any text."""

    def delta(self, index: int, piece: Delta, offset: int) -> Body:
        """The chunk of one piece of text, behind `offset` characters of its response."""

    def closing_chunks(self, index: int, end: Finished) -> Iterator[Body]:
        """Chunks that come after the last text of a response: attribution, finish reason."""

    def usage_chunks(self, ends: Sequence[Finished]) -> Iterator[Body]:
        """The last chunk: usage, where it is wanted."""


@dataclass(frozen=True)
class _Head:
    """What every body of one answer repeats: its id, time in seconds since 1970, model, and what was asked for.

    The first response of a request has the answer's id, those after it have that id with `-1`, `-2` and so on behind
    it. Where a stream ends in a chunk with the usage (`with_usage`), every chunk before it has a `usage` of null, as
    OpenAI's have.
    """

    response_id: str
    created: int
    model: str
    attribution: AttributionLevel
    with_usage: bool
    with_logprobs: bool = False
    choices: int = 1

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

    def usage(self, ends: Sequence[Finished]) -> Body:
        """Counts of tokens, of the prompt once; with each response's booked credit when attribution was asked for."""
        prompt_tokens, completion_tokens = ends[0].prompt_tokens, sum(end.completion_tokens for end in ends)
        usage = Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        ).model_dump(exclude_unset=True)
        if self.attribution != "none" and self.choices == 1:
            usage["attribution"] = _totals(ends[0])
        elif self.attribution != "none":
            usage["attribution"] = {"choices": [self._choice_totals(index, end) for index, end in enumerate(ends)]}
        return usage

    def _choice_totals(self, index: int, end: Finished) -> Body:
        response_id = self.response_id if index == 0 else f"{self.response_id}-{index}"
        return {"index": index, "id": response_id, **_totals(end)}

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
    assert summary is not None, "an end of which attribution is asked tells it"
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

    def whole_body(self, texts: Sequence[WholeText]) -> Body:
        """The body of an answer that is not streamed."""
        choices = [self._whole_choice(index, whole) for index, whole in enumerate(texts)]
        return self.body("chat.completion", choices, usage=self.usage([whole.end for whole in texts]))

    def opening_chunks(self) -> Iterator[Body]:
        """The chunks that say who speaks."""
        for index in range(self.choices):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def delta(self, index: int, piece: Delta, _offset: int) -> Body:
        """The chunk of one piece of text."""
        return self._chunk(index, {"content": piece.text}, chat_logprobs(piece.logprobs) if piece.logprobs else None)

    def closing_chunks(self, index: int, end: Finished) -> Iterator[Body]:
        """Attribution in `delta`, then the finish reason."""
        for attribution in self.attribution_chunks(end):
            yield self._chunk(index, {"attribution": attribution})
        yield self._chunk(index, {}, None, end.finish_reason)

    def usage_chunks(self, ends: Sequence[Finished]) -> Iterator[Body]:
        """Usage in a chunk without choices."""
        if self.with_usage:
            yield self.body("chat.completion.chunk", [], usage=self.usage(ends))

    def _whole_choice(self, index: int, whole: WholeText) -> Body:
        message = {
            "role": "assistant",
            "content": whole.text,
            "refusal": None,
            **self.attribution_whole(whole.end),
        }
        logprobs = chat_logprobs(whole.logprobs) if self.with_logprobs else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": whole.end.finish_reason}

    def _chunk(self, index: int, delta: Body, logprobs: Body | None = None, finish_reason: FinishReason = None) -> Body:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self.chunk("chat.completion.chunk", choice)


@dataclass(frozen=True)
class TextWire(_Head):
    """Bodies of `/v1/completions`. `by_id` names tokens by their ids where log-probabilities are told."""

    by_id: bool = False
    kind: ClassVar = "text_completion"

    def whole_body(self, texts: Sequence[WholeText]) -> Body:
        """The body of an answer that is not streamed."""
        choices = [self._whole_choice(index, whole) for index, whole in enumerate(texts)]
        return self.body(self.kind, choices, usage=self.usage([whole.end for whole in texts]))

    def opening_chunks(self) -> Iterator[Body]:
        """Nothing: text completions have no speaker."""
        return iter(())

    def delta(self, index: int, piece: Delta, offset: int) -> Body:
        """The chunk of one piece of text."""
        logprobs = text_logprobs(piece.logprobs, offset, by_id=self.by_id) if piece.logprobs else None
        return self.chunk(self.kind, _text_choice(index, piece.text, logprobs, **_ids(piece.token_ids)))

    def closing_chunks(self, index: int, end: Finished) -> Iterator[Body]:
        """Attribution beside empty text, then the finish reason."""
        for attribution in self.attribution_chunks(end):
            yield self.chunk(self.kind, _text_choice(index, "", attribution=attribution))
        yield self.chunk(self.kind, _text_choice(index, "", None, end.finish_reason))

    def usage_chunks(self, ends: Sequence[Finished]) -> Iterator[Body]:
        """Usage in a chunk without choices."""
        if self.with_usage:
            yield self.body(self.kind, [], usage=self.usage(ends))

    def _whole_choice(self, index: int, whole: WholeText) -> Body:
        logprobs = text_logprobs(whole.logprobs, 0, by_id=self.by_id) if self.with_logprobs else None
        rest = self.attribution_whole(whole.end) | _ids(whole.token_ids)
        return _text_choice(index, whole.text, logprobs, whole.end.finish_reason, **rest)


def _text_choice(
    index: int, text: str, logprobs: Body | None = None, finish_reason: FinishReason = None, **rest: Any
) -> Body:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason, **rest}


def _ids(told: TokenIds | None) -> Body:
    """The fields in which vLLM tells ids: of tokens in each choice, of the prompt in the first one of a stream."""
    if told is None:
        return {}
    return {"token_ids": told.ids} | ({} if told.prompt is None else {"prompt_token_ids": told.prompt})


def wire_of(request: ChatRequest | CompletionRequest, response_id: str, created_at_us: int) -> Wire:
    """The wire of the answer to a request, of that id and asked for at that time (in microseconds since 1970)."""
    kind: type[ChatWire] | partial[TextWire] = ChatWire
    if isinstance(request, CompletionRequest):
        kind = partial(TextWire, by_id=request.return_tokens_as_token_ids)
    return kind(
        response_id,
        created_at_us // 1_000_000,
        request.model,
        request.attribution,
        request.wants_usage,
        with_logprobs=request.likely_tokens is not None,
        choices=request.n,
    )
