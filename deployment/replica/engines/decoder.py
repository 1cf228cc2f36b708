"""What a worker asks of whoever makes tokens: `attribution.decoding.decode.Batch`, or a batch of a remote engine."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from attribution.records import Generation, Sampling, Step


class Decoder(Protocol):
    """Rows that are given tokens, step by step. One thread owns it; `check` alone may be called from any."""

    def __len__(self) -> int:
        """Rows that still want tokens."""

    @property
    def is_reading(self) -> bool:
        """Whether the next step takes longer, as it reads a part of a prompt too."""

    def check(self, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Refuse what could not join.

        Raises:
            PromptError: names the setting at fault.
        """

    def join(self, key: str, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Take a prompt.

        Raises:
            PromptError: it could not join, as `check` says.
        """

    def step(self) -> Sequence[Step]:
        """At most one token for each row; returns soon, with none where none came."""

    def take_failures(self) -> Mapping[str, Exception]:
        """Why rows failed that had not left, by key, each told once; what they had can be had by `leave`."""

    def leave(self, key: str) -> Generation:
        """Take a row out, whether or not it has ended, with all that was generated so far.

        Raises:
            Exception: what the row failed of, where `take_failures` has not told it.
        """
