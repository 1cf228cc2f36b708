"""Keys and values of all rows, each row in a slot of its own from its first column on: nothing is copied in a step.

Slots and columns grow by doubling, when a row needs what is not there, and are given back when no row is left: memory
is that of as many slots as there were rows at once, each of as many columns as the longest had. What lies behind a
row's end is zero, so that it disturbs nobody who does not look at it. Does not know what a row is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from attribution.decoding.window import Pass

_FEWEST_COLUMNS = 64


class RowsCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """The cache of several rows, as transformers' models use one under `attention_by_rows`.

    Attributes:
        lengths: how many positions each slot holds.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(layers=[])
        self.layers: list[RowsLayer] = []
        self.lengths: list[int] = []
        self._written: list[int] = []  # columns of each slot that may not be zero
        self._device = device
        self._pass: Pass | None = None

    def add(self) -> int:
        """Make an empty slot behind the others, and return its number."""
        with torch.inference_mode():
            for layer in self.layers:
                layer.fit(len(self.lengths) + 1, 0)
        self.lengths.append(0)
        self._written.append(0)
        return len(self.lengths) - 1

    def open(self, first: int, parts: Sequence[int]) -> Pass:
        """Begin a pass of new tokens over the slots from `first` on; until `advance` it counts for nothing."""
        slots = range(first, first + len(parts))
        self._pass = Pass(first, [self.lengths[slot] for slot in slots], parts, self._device)
        for slot, part in zip(slots, parts, strict=True):
            self._written[slot] = max(self._written[slot], self.lengths[slot] + part)
        return self._pass

    def advance(self) -> None:
        """The pass was run whole: its tokens are there from now on."""
        assert self._pass is not None
        for slot, part in enumerate(self._pass.parts, self._pass.first):
            self.lengths[slot] += part

    def fill(self, slot: int, source: int) -> None:
        """Let the row of another slot be in this one, whose own is forgotten. Allocates nothing."""
        columns = max(self._written[slot], self._written[source])
        with torch.inference_mode():
            for tensor in self._tensors():
                tensor[slot, :columns].copy_(tensor[source, :columns])
        self.lengths[slot], self._written[slot] = self.lengths[source], self._written[source]

    def pop(self) -> None:
        """Forget the last slot; with the last of all, the memory is given back. Allocates nothing."""
        columns = self._written.pop()
        self.lengths.pop()
        if not self.lengths:
            self.layers = []
        with torch.inference_mode():
            for tensor in self._tensors():
                tensor[len(self.lengths), :columns].zero_()

    def swap(self, one: int, other: int) -> None:
        """Exchange two slots; whole or, where there is no memory for one row of one layer, not at all."""
        columns = max(self._written[one], self._written[other])
        tensors = self._tensors()
        with torch.inference_mode():
            spare = tensors[0].new_empty(max(tensor[one, :columns].numel() for tensor in tensors)) if tensors else None
            for tensor in tensors:
                first, second = tensor[one, :columns], tensor[other, :columns]
                assert spare is not None
                kept = spare[: first.numel()].view_as(first).copy_(first)
                first.copy_(second)
                second.copy_(kept)
        for numbers in (self.lengths, self._written):
            numbers[one], numbers[other] = numbers[other], numbers[one]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Write the new keys and values (1, heads, tokens, width) of a layer; views of all that each window sees."""
        assert self._pass is not None
        while len(self.layers) <= layer_idx:
            self.layers.append(RowsLayer())
        layer = self.layers[layer_idx]
        layer.begin(key_states, value_states)
        layer.fit(len(self.lengths), self._pass.columns)
        return layer.write(key_states, value_states, self._pass)

    def _tensors(self) -> list[Tensor]:
        return [tensor for layer in self.layers for tensor in layer.tensors if len(tensor)]


class RowsLayer:
    """Keys and values of one layer, each (slots, columns, heads, width): the columns of a slot lie together."""

    is_sliding = False  # it keeps all; what a sliding layer may not see is masked
    is_compileable = False

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def begin(self, *states: Tensor) -> None:
        """Take shape and type from the first states (rows, heads, tokens, width)."""
        if not self.tensors:
            self.tensors = [state.new_empty(0, 0, state.shape[1], state.shape[3]) for state in states]

    def fit(self, slots: int, columns: int) -> None:
        """Grow until there is room for so many; whole or, where memory does not suffice, not at all."""
        if not self.tensors:
            return
        have = self.tensors[0].shape
        if slots <= have[0] and columns <= have[1]:
            return
        shape = [_double(have[0] or 1, slots), _double(have[1] or _FEWEST_COLUMNS, columns)]
        grown = [tensor.new_zeros(*shape, *tensor.shape[2:]) for tensor in self.tensors]
        for new, old in zip(grown, self.tensors, strict=True):
            new[: have[0], : have[1]].copy_(old)
        self.tensors = grown

    def write(self, keys: Tensor, values: Tensor, rows: Pass) -> tuple[list[Tensor], list[Tensor]]:
        """Put new states where the pass says; what each window sees of each, (rows, heads, columns, width)."""
        seen = []
        for tensor, states in zip(self.tensors, (keys, values), strict=True):
            slots, columns, heads, width = tensor.shape
            lines = states[0].transpose(0, 1).reshape(-1, heads * width)  # a line for each token
            tensor.view(slots * columns, heads * width).index_copy_(0, rows.places(columns), lines)
            seen.append([tensor[each.slots, : each.columns].transpose(1, 2) for each in rows.windows])
        return seen[0], seen[1]


def _double(number: int, least: int) -> int:
    while number < least:
        number *= 2
    return number
