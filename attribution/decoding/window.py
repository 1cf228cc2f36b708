"""One pass of new tokens over some rows: where each token goes, which position it has, and what it may see.

The tokens of all rows follow each other, as if they were of one text, so that a pass costs what its tokens cost,
whatever prompts and rows it is of. Only attention goes by the row. Rows have slots beside each other; a row's keys and
values begin at the first column of its slot. Lengths are known to the host, so nothing here waits for the device. Knows
no network.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, groupby

import torch
from torch import Tensor


class Window:
    """Rows that attend together: the slots from `first` on, of `lengths` positions so far, get `tokens` more each."""

    def __init__(self, first: int, lengths: Sequence[int], tokens: int, device: torch.device) -> None:
        self.first = first
        self.lengths = tuple(lengths)
        self.tokens = tokens
        self.columns = max(lengths) + tokens
        self._device = device

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.lengths)

    @property
    def slots(self) -> slice:
        """Theirs."""
        return slice(self.first, self.first + self.rows)

    def places(self, capacity: int) -> Iterator[int]:
        """Where the tokens go, in slots of so many columns that follow each other."""
        for slot, length in enumerate(self.lengths, self.first):
            begin = slot * capacity + length
            yield from range(begin, begin + self.tokens)

    def positions(self) -> Iterator[int]:
        """The position of each token in its row."""
        for length in self.lengths:
            yield from range(length, length + self.tokens)

    def mask(self, width: int | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to attention scores, (rows, 1, tokens, columns): 0 or −∞; each sees itself and what is before.

        Only the last `width` of these, where the layer's attention slides. None where torch masks the right ones by
        itself: a single token that sees all columns, or rows that have no position yet.
        """
        slides = width is not None and self.columns > width
        if len(set(self.lengths)) == 1 and (self.tokens == 1 or not self.lengths[0]) and not slides:
            return None
        columns = torch.arange(self.columns, device=self._device)
        positions = torch.tensor([*self.positions()], device=self._device).view(self.rows, self.tokens, 1)
        unseen = columns > positions
        if width is not None and slides:
            unseen |= columns <= positions - width
        return torch.zeros(unseen.shape, dtype=dtype, device=self._device).masked_fill_(unseen, -torch.inf).unsqueeze(1)


class Pass:
    """New tokens, so many (`parts`) of each of the slots from `first` on, which have `lengths` positions so far.

    Attributes:
        windows: rows that get one token each and stand beside each other attend together, any other by itself.
    """

    def __init__(self, first: int, lengths: Sequence[int], parts: Sequence[int], device: torch.device) -> None:
        self.parts = tuple(parts)
        self.first = first
        self._device = device
        self.windows = tuple(_windows(first, lengths, parts, device))
        self._places: dict[int, Tensor] = {}
        self._masks: dict[int | None, list[Tensor | None]] = {}

    @property
    def columns(self) -> int:
        """How many a slot must have."""
        return max(window.columns for window in self.windows)

    @cached_property
    def positions(self) -> Tensor:
        """The position of each token in its row, (1, tokens)."""
        return self._tensor([position for window in self.windows for position in window.positions()]).unsqueeze(0)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """For each row, where its last token is among all."""
        return tuple(end - 1 for end in accumulate(self.parts))

    def places(self, capacity: int) -> Tensor:
        """Where the tokens go, in slots of so many columns that follow each other."""
        if capacity not in self._places:
            self._places[capacity] = self._tensor(
                [place for window in self.windows for place in window.places(capacity)]
            )
        return self._places[capacity]

    def masks(self, width: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """The mask of each window, where attention is so wide; made once for all layers of a kind."""
        if width not in self._masks:
            self._masks[width] = [window.mask(width, dtype) for window in self.windows]
        return self._masks[width]

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self._device)


def _windows(first: int, lengths: Sequence[int], parts: Sequence[int], device: torch.device) -> Iterator[Window]:
    for part, run in groupby(range(len(parts)), key=lambda place: parts[place]):
        places = list(run)
        for those in [places] if part == 1 else [[place] for place in places]:
            yield Window(first + those[0], [lengths[place] for place in those], part, device)
