"""Keys and values of all running rows together, padded on the left: rows come, go, and are read apart.

Each change is made whole or not at all, also when memory runs out within it. Does not know what a row is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

Column = list[tuple[Tensor, Tensor]]
"""Keys and values of one position of one row, for each layer."""


class RowsCache:
    """The cache of several rows, and `mask` (rows, length), which is 0 where a row is padded."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.cache: DynamicCache | None = None
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=device)

    def add(self, cache: DynamicCache) -> None:
        """Append the cache of one row, padding the shorter side."""
        length = cache.get_seq_length()
        mask = torch.ones(1, length, dtype=torch.long, device=self._device)
        if self.cache is None:
            self.cache, self.mask = cache, mask
            return
        rows, before = self.mask.shape
        total = max(length, before)
        mask = torch.cat([_pad_left(self.mask, total, 1), _pad_left(mask, total, 1)])
        try:
            for running, joining in zip(self.cache.layers, cache.layers, strict=True):
                both = [
                    torch.cat([_pad_left(getattr(layer, side), total, 2) for layer in (running, joining)])
                    for side in ("keys", "values")
                ]
                running.keys, running.values = both
        except Exception:
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:rows, :, -before:], layer.values[:rows, :, -before:]
            raise
        self.mask = mask

    def remove(self, index: int) -> None:
        """Take out a row; the last one takes its place. Allocates nothing, so it works where memory has run out."""
        last = self.mask.shape[0] - 1
        with torch.inference_mode():
            for tensor in (self.mask, *self._tensors()):
                if index != last:
                    tensor[index].copy_(tensor[last])
        self.mask = self.mask[:last]
        if not last:
            self.cache, self.mask = None, self.mask[:, :0]
            return
        assert self.cache is not None
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:last], layer.values[:last]

    def trim(self) -> None:
        """Forget the columns that no row needs any more."""
        if self.cache is None:
            return
        used = int(self.mask.sum(1).max())
        self.mask = self.mask[:, -used:]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, -used:], layer.values[:, :, -used:]

    def rewind(self) -> None:
        """Forget what a forward pass that failed had appended in some of the layers."""
        assert self.cache is not None
        length = self.mask.shape[1]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]

    def grow(self) -> None:
        """A forward pass has appended one position to every row."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)

    def copy_row(self, index: int) -> DynamicCache:
        """A copy of the cache of one row alone, without its padding."""
        assert self.cache is not None
        used = int(self.mask[index].sum())
        alone = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            alone.update(layer.keys[index : index + 1, :, -used:], layer.values[index : index + 1, :, -used:], number)
        return alone

    def append(self, columns: Sequence[Column]) -> None:
        """Add one position to every row, each with its own keys and values."""
        assert self.cache is not None
        try:
            for number, layer in enumerate(self.cache.layers):
                keys = torch.cat([layer.keys, torch.cat([column[number][0] for column in columns])], dim=2)
                values = torch.cat([layer.values, torch.cat([column[number][1] for column in columns])], dim=2)
                layer.keys, layer.values = keys, values
            self.grow()
        except Exception:
            self.rewind()
            raise

    def _tensors(self) -> list[Tensor]:
        return (
            [] if self.cache is None else [side for layer in self.cache.layers for side in (layer.keys, layer.values)]
        )


def last_column(cache: DynamicCache) -> Column:
    """The last position of a cache of one row."""
    return [(layer.keys[:, :, -1:].clone(), layer.values[:, :, -1:].clone()) for layer in cache.layers]


def _pad_left(tensor: Tensor, length: int, dimension: int) -> Tensor:
    missing = length - tensor.shape[dimension]
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[dimension] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dimension)
