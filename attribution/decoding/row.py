"""One response on its way: what was asked, which tokens it was given, and the text that may be shown of it.

Knows its tokenizer and its sampling; does not know the model, nor who else is in the batch.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from attribution.base.tokenizer import panics_raised
from attribution.decoding.sampling import Choice, Draw
from attribution.decoding.stop_strings import length_to_show, place_of_stop
from attribution.errors import ScoreError
from attribution.records import FinishReason, Generation, Sampling, Step


class Row:
    """One request in the batch: what it asked, what it has been given, and what was captured on the way.

    Attributes:
        unfed: how many tokens of the prompt are still to be run.
        gone: it wants no more tokens: it ended, failed or left.
    """

    def __init__(self, key: str, prompt_ids: Sequence[int], sampling: Sampling, tokenizer: Any) -> None:
        self.key = key
        self.prompt_ids = list(prompt_ids)
        self.sampling = sampling
        self.token_ids: list[int] = []
        self.pieces: list[str] = []
        self.logprobs: list[float] = []
        self.finish_reason: FinishReason | None = None
        self.captured: dict[str, list[Tensor]] = {}
        self.unfed = len(self.prompt_ids)
        self.gone = False
        self._text = ""
        self._sent = 0
        self._tokenizer = tokenizer
        # A stream begun with text that ends torn gives that text out as if it were new.
        with panics_raised():
            torn = tokenizer.decode(self.prompt_ids, skip_special_tokens=True).endswith("\ufffd")
            self._stream = DecodeStream(ids=[] if torn else self.prompt_ids, skip_special_tokens=True)
        # its own numbers, so that it says the same whoever else is there, and on every device
        self._numbers = random.Random(None if sampling.seed is None else sampling.seed % 2**64)  # noqa: S311 - no secret
        self._uniform = self._numbers.random()
        self._adjustments = dict(sampling.logit_bias)
        self._counts: dict[int, int] = {}

    @property
    def draw(self) -> Draw:
        """What it brings to the choice of its next token; the same until that is taken."""
        return Draw(self.sampling, self._uniform, self._adjustments)

    def next_ids(self, part: int) -> list[int]:
        """So many of the tokens that are to be run next: of its prompt, and then the last that it was given."""
        if not self.unfed:
            return self.token_ids[-1:]
        start = len(self.prompt_ids) - self.unfed
        return self.prompt_ids[start : start + part]

    def take_fed(self, part: int, captured: dict[str, Tensor]) -> None:
        """Its next tokens were run, and this was captured of them."""
        self.unfed -= min(part, self.unfed)
        for name, tensor in captured.items():
            self.captured.setdefault(name, []).append(tensor)

    def emit(self, choice: Choice, ends: set[int]) -> Step:
        """Take a token and return what can be shown now: text that may begin a stop string is held back.

        When the tokenizer cannot decode it the row is left as it was.

        Raises:
            ScoreError: the logits were not numbers to choose by.
        """
        token, logprob = choice.token, choice.logprob
        if not math.isfinite(logprob):
            raise ScoreError("the model's logits are NaN or infinite, so no token can be chosen")
        with panics_raised():
            piece = self._stream.step(self._tokenizer, token) or ""
        text = self._text + piece
        cut = place_of_stop(text, len(self._text), self.sampling.stop)
        reason: FinishReason | None = None
        if token in ends or cut is not None:
            reason = "stop"
        elif len(self.token_ids) + 1 >= self.sampling.max_new_tokens:
            reason = "length"
        if reason and cut is None:
            rest = unfinished_character(self._tokenizer, [*self.token_ids, token], text)
            piece += rest
            text += rest
        if cut is not None:
            shown = cut
        elif reason:
            shown = len(text)
        else:
            shown = max(self._sent, length_to_show(text, self.sampling.stop))
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.pieces.append(piece)
        self._count(token)
        self._text, self.finish_reason = text, reason
        self.gone = reason is not None
        delta, self._sent = text[self._sent : shown], shown
        return Step(self.key, token, logprob, delta, reason, choice.top_logprobs)

    def generation(self) -> Generation:
        """What was generated so far."""
        emitting = len(self.token_ids)  # the last token was never fed, so the captured rows are one for each token
        fed = len(self.prompt_ids) + emitting - 1
        return Generation(
            prompt_token_ids=tuple(self.prompt_ids),
            token_ids=tuple(self.token_ids),
            tokens=tuple(self.pieces),
            logprobs=tuple(self.logprobs),
            text=self._text[: self._sent] if self.finish_reason else self._text,
            finish_reason=self.finish_reason,
            sampling=self.sampling,
            tail_input=self._tensor("tail_input", fed) if "tail_input" in self.captured else None,
            block_input=self._tensor("block_input", emitting),
            o_proj_input=self._tensor("o_proj_input", emitting),
            o_proj_output=self._tensor("o_proj_output", emitting),
        )

    def _count(self, token: int) -> None:
        """Note a token for the penalties of the next ones, and take the next number."""
        self._uniform = self._numbers.random()
        sampling = self.sampling
        if sampling.frequency_penalty or sampling.presence_penalty:
            times = self._counts[token] = self._counts.get(token, 0) + 1
            penalty = sampling.frequency_penalty * times + sampling.presence_penalty
            self._adjustments[token] = sampling.logit_bias.get(token, 0.0) - penalty

    def _tensor(self, name: str, length: int) -> Tensor:
        parts = self.captured.get(name)
        return torch.cat(parts)[:length] if parts else torch.empty(0)


def unfinished_character(tokenizer: Any, token_ids: Sequence[int], text: str) -> str:
    """What tokens that end within a character decode to beyond the `text` that was streamed: the last token's."""
    with panics_raised():
        whole: str = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    return whole[len(text) :] if whole.startswith(text) else ""
