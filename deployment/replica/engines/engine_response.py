"""One response of an engine, held against what was asked, token by token.

The text, and where it ends, are the row's: that of our own decoder, which knows the bundle's tokenizer. Whatever the
engine does otherwise than it was asked ends this response. Knows no HTTP and no thread.
"""

import time
from collections import deque

from attribution.decoding.row import Row
from attribution.decoding.sampling import Choice
from attribution.records import Step
from deployment.replica.engines.completions_protocol import Chunk, ToldToken
from deployment.replica.engines.connection import Arrival, Stream
from deployment.replica.engines.errors import EngineError, away, breach

END_PATIENCE_S = 5.0
"""How long the engine may take to tell its count of tokens, once the last of them came."""


class EngineRequest:
    """What came of a response, and what is still to be given of it.

    Args:
        row: what was asked, and the text.
        ends: tokens that end a response by the bundle.
        vocabulary: how many tokens the model has.

    Attributes:
        stream: the engine's answer, once it was asked for.
    """

    def __init__(self, row: Row, ends: set[int], vocabulary: int) -> None:
        self.row = row
        self.stream: Stream | None = None
        self._ends = ends
        self._vocabulary = vocabulary
        self._tokens: deque[ToldToken] = deque()  # that came and are not given yet
        self._number = 0  # of all that came
        self._begun = False
        self._finish_reason: str | None = None
        self._stops = False  # the engine, at the last token that came
        self._counted: int | None = None  # tokens, by the engine's count
        self._failure: EngineError | None = None
        self._is_over = False  # nothing more comes
        self._until: float | None = None  # when the last token is waited for no longer

    @property
    def is_ready(self) -> bool:
        """Whether `advance` has something to do."""
        if self.row.gone:
            return False
        return self._is_over or (bool(self._tokens) and (not self._is_last(self._tokens[0]) or self._is_settled()))

    def take(self, arrival: Arrival) -> None:
        """What came of it: a piece, why there is no more, or its end. What is wrong is told once it is its turn."""
        if self._is_over:
            return
        if not isinstance(arrival, Chunk):
            self._failure, self._is_over = arrival, True
            return
        try:
            self._take_chunk(arrival)
        except EngineError as error:
            self._failure, self._is_over = error, True
            self.let_go()

    def advance(self) -> Step:
        """The next token of a request that is ready.

        Raises:
            EngineError: the engine did not do as it was asked, or broke off.
            ScoreError: a log-probability is no number.
        """
        if self._tokens:
            token = self._tokens[0]
            is_last = self._is_last(token)
            if is_last:
                self._require_count()
            ends = self._ends | {token.token_id} if self._is_engines_end() else self._ends
            self._tokens.popleft()
            top = token.top[: self.row.sampling.top_logprobs]
            step = self.row.emit(Choice(token.token_id, token.logprob or 0.0, top), ends)
            if self.row.gone:
                self.let_go()
            return step
        if self._failure is not None:
            raise self._failure
        if self._finish_reason in ("stop", "length"):
            raise breach(f"it ends by {self._finish_reason!r} at no token that would end it")
        raise away("the engine broke off", may_pass=False)

    def let_go(self) -> None:
        """End the engine's answer; nothing happens where it has ended."""
        if self.stream is not None:
            self.stream.cancel()

    def _take_chunk(self, chunk: Chunk) -> None:
        if chunk.tokens or chunk.prompt_ids is not None:
            self._check_prompt(chunk)
        if chunk.has_text and not chunk.tokens:
            raise breach("it has text without token ids; it must understand return_token_ids")
        for token in chunk.tokens:
            if not 0 <= token.token_id < self._vocabulary:
                raise breach(f"it has token {token.token_id}, but the model's last token is {self._vocabulary - 1}")
            if token.logprob is None and self.row.sampling.tells_logprobs:
                raise breach("it tells no log-probabilities")
        self._tokens.extend(chunk.tokens)
        self._number += len(chunk.tokens)
        self._finish_reason = chunk.finish_reason or self._finish_reason
        if chunk.tokens:
            self._stops = chunk.finish_reason == "stop"
        self._counted = self._counted if chunk.completion_tokens is None else chunk.completion_tokens

    def _check_prompt(self, chunk: Chunk) -> None:
        if not self._begun and chunk.prompt_ids is None:
            raise breach("it begins without the ids of the prompt; it must understand return_token_ids")
        if chunk.prompt_ids is not None and list(chunk.prompt_ids) != self.row.prompt_ids:
            raise breach("it is to another prompt than was sent")
        self._begun = True

    def _is_engines_end(self) -> bool:
        """Whether the token to be given next is the one at which the engine stopped."""
        return self._stops and len(self._tokens) == 1

    def _is_last(self, token: ToldToken) -> bool:
        """Whether the response ends with the token to be given next, by more than a stop string in its text."""
        is_full = len(self.row.token_ids) + 1 >= self.row.sampling.max_new_tokens
        return is_full or token.token_id in self._ends or self._is_engines_end()

    def _is_settled(self) -> bool:
        """Whether the last token need not wait: for the engine's count, or because the engine goes on behind it."""
        self._until = self._until or time.monotonic() + END_PATIENCE_S
        return self._is_over or len(self._tokens) > 1 or time.monotonic() >= self._until

    def _require_count(self) -> None:
        """Refuse a response of which the engine counts other tokens than came, once it has told all of it."""
        if len(self._tokens) > 1:  # for the engine it is not the last
            return
        if self._failure is not None:
            raise self._failure
        if self._counted != self._number:
            told = "no count of its tokens" if self._counted is None else f"{self._counted} tokens"
            raise breach(f"it tells {told} where {self._number} came; hidden ones cannot be attributed")
