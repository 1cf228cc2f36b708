"""What a number of streams came to. Pure: moments in, figures out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Reply:
    """One streamed response, its moments in seconds of one clock.

    Attributes:
        prompt: what was asked.
        text: what came.
        tokens: how many, by the usage that the server told.
        begin: when it was asked for.
        pieces: when each piece of text came.
        end: when the stream ended.
    """

    prompt: str
    text: str
    tokens: int
    begin: float
    pieces: tuple[float, ...]
    end: float

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece of text and the next."""
        return [after - before for before, after in pairwise(self.pieces)]


@dataclass(frozen=True)
class Load:
    """Replies of so many streams at once, and the processor time that the server took for them."""

    streams: int
    replies: tuple[Reply, ...]
    processor_s: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of all replies."""
        return sum(reply.tokens for reply in self.replies)

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second, from the first request to the last end."""
        begin, end = min(reply.begin for reply in self.replies), max(reply.end for reply in self.replies)
        return self.tokens / (end - begin)

    @property
    def first_token_s(self) -> float:
        """Seconds until the first piece of text: the median."""
        return percentile([reply.pieces[0] - reply.begin for reply in self.replies], 50)

    def between_s(self, percent: float) -> float:
        """Seconds between tokens: a percentile over all replies."""
        return percentile(self._gaps, percent)

    @property
    def end_wait_s(self) -> float:
        """Seconds from the last piece of text but one to the end of the stream, less one step: the median.

        From the last but one, as a server may keep the last piece until the response is booked.
        """
        waits = [reply.end - reply.pieces[-2] for reply in self.replies]
        return max(0.0, percentile(waits, 50) - self.between_s(50))

    @cached_property
    def _gaps(self) -> list[float]:
        return [gap for reply in self.replies for gap in reply.gaps]


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile, between two values where it falls between them."""
    return float(np.percentile(values, percent))


def equal_texts(ours: Sequence[Reply], theirs: Sequence[Reply]) -> float:
    """Of the prompts that both answered, the share with the same text.

    Raises:
        ValueError: there is no such prompt.
    """
    texts = {reply.prompt: reply.text for reply in theirs}
    same = [texts[reply.prompt] == reply.text for reply in ours if reply.prompt in texts]
    if not same:
        raise ValueError("the two answered no prompt in common")
    return sum(same) / len(same)
