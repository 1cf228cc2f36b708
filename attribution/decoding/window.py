"""One pass of new tokens over some rows: where each token goes, which position it has, and what it may see.

Rows have slots beside each other; a row's keys and values begin at the first column of its slot. Their parts of the
pass are padded on the left, so that each ends in the last column of the pass. Lengths are known to the host, so nothing
here waits for the device. Knows no network.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor


class Window:
    """A pass over the slots from `first` on, whose rows have `lengths` positions so far and get `parts` more."""

    def __init__(self, first: int, lengths: Sequence[int], parts: Sequence[int], device: torch.device) -> None:
        self.first = first
        self.lengths = tuple(lengths)
        self.parts = tuple(parts)
        self.tokens = max(parts)
        self.columns = max(length + part for length, part in zip(lengths, parts, strict=True))
        self.is_even = len(set(lengths)) == len(set(parts)) == 1
        self._device = device
        self._places: dict[int, Tensor] = {}

    @property
    def end(self) -> int:
        """The slot after the last."""
        return self.first + len(self.parts)

    @cached_property
    def positions(self) -> Tensor:
        """The position of each token in its row, (rows, tokens); of padding, one that it has."""
        starts = [
            length + part - self.tokens for length, part in zip(self.lengths, self.parts, strict=True)
        ]  # of the padding, where there is some
        return (self._tensor(starts).unsqueeze(-1) + torch.arange(self.tokens, device=self._device)).clamp_(min=0)

    @cached_property
    def places_of_tokens(self) -> Tensor | None:
        """Which of the rows · tokens are none of padding; None where all are."""
        if min(self.parts) == self.tokens:
            return None
        return self._tensor(
            [
                row * self.tokens + column
                for row, part in enumerate(self.parts)
                for column in range(self.tokens - part, self.tokens)
            ]
        )

    def places(self, capacity: int) -> Tensor:
        """Where the kept tokens go, in slots of so many columns that follow each other."""
        if capacity not in self._places:
            self._places[capacity] = self._tensor(
                [
                    slot * capacity + length + column
                    for slot, length, part in zip(range(self.first, self.end), self.lengths, self.parts, strict=True)
                    for column in range(part)
                ]
            )
        return self._places[capacity]

    def mask(self, width: int | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to attention scores, (rows, 1, tokens, columns): 0 or −∞; each sees itself and what is before.

        Only the last `width` of these, where the layer's attention slides. None where torch masks the right ones by
        itself: a single token that sees all columns, or rows that have no position yet.
        """
        slides = width is not None and self.columns > width
        if self.is_even and (self.tokens == 1 or not self.lengths[0]) and not slides:
            return None
        columns, positions = torch.arange(self.columns, device=self._device), self.positions.unsqueeze(-1)
        unseen = columns > positions
        if width is not None and slides:
            unseen |= columns <= positions - width
        return torch.zeros(unseen.shape, dtype=dtype, device=self._device).masked_fill_(unseen, -torch.inf).unsqueeze(1)

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self._device)
