"""One pass of the next tokens of several rows through the network, and what is captured of it for each row.

Does not know who runs, joins or fails.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attribution.base.layers import cap_logits
from attribution.decoding.capture import capture
from attribution.decoding.row import Row
from attribution.decoding.rows_cache import RowsCache
from attribution.decoding.taps import Captures, TappedModel, taps
from attribution.decoding.window import Window


class Forward:
    """The passes of one network over one cache."""

    def __init__(self, model: TappedModel, cache: RowsCache, captures: Captures) -> None:
        self._network = model.network
        self._layers = model.layers
        self._cache = cache
        self._taps = taps(model, captures)
        self._device: torch.device = model.network.device
        self._dtype: torch.dtype = model.network.dtype

    def run(self, first: int, parts: Sequence[tuple[Row, int]]) -> Tensor:
        """Feed rows, whose slots are those from `first` on, so many of their next tokens: the logits after the last.

        A pass that fails leaves the rows as they were, and counts for nothing in the cache.
        """
        window = self._cache.open(first, [part for _, part in parts])
        ids = [[0] * (window.tokens - part) + row.next_ids(part) for row, part in parts]
        with torch.inference_mode(), capture(self._taps) as seen:
            hidden: Tensor = self._network.model(
                input_ids=torch.tensor(ids, device=self._device),
                position_ids=window.positions,
                attention_mask=self._masks(window),
                past_key_values=self._cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            # of two dimensions, as a slice of three makes torch copy the head's weights once for each row
            logits = cap_logits(self._network.config, self._layers.lm_head(hidden.contiguous()))
            kept = [_own(seen, index, row, part) for index, (row, part) in enumerate(parts)]
        self._cache.advance()
        for (row, part), tensors in zip(parts, kept, strict=True):
            row.take_fed(part, tensors)
        return logits

    def _masks(self, window: Window) -> Tensor | dict[str, Tensor | None] | None:
        """The mask, or one for each kind of layer where there are kinds."""
        config = self._network.config
        kinds = getattr(config, "layer_types", None)
        if kinds is None:
            return window.mask(None, self._dtype)
        widths = {"full_attention": None, "sliding_attention": config.sliding_window}
        return {kind: window.mask(widths[kind], self._dtype) for kind in set(kinds)}


def _own(seen: dict[str, Tensor], index: int, row: Row, part: int) -> dict[str, Tensor]:
    """One row's share of what was captured, in memory of its own: a view would keep that of all rows.

    `tail_input` is kept of every token, the others of the last, after which a token is emitted.
    """
    emits = part == max(row.unfed, 1)
    return {
        name: tensor[index, -part if name == "tail_input" else -1 :].clone()
        for name, tensor in seen.items()
        if emits or name == "tail_input"
    }
