"""One pass of the next tokens of several rows through the network, and what is captured of it for each row.

Does not know who runs, joins or fails.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attribution.base.layers import cap_logits
from attribution.decoding.capture import capture
from attribution.decoding.row import Row
from attribution.decoding.rows_attention import attention_by_rows
from attribution.decoding.rows_cache import RowsCache
from attribution.decoding.taps import Captures, TappedModel, taps


class Forward:
    """The passes of one network over one cache."""

    def __init__(self, model: TappedModel, cache: RowsCache, captures: Captures) -> None:
        self._network = model.network
        self._layers = model.layers
        self._cache = cache
        self._taps = taps(model, captures)
        self._device: torch.device = model.network.device

    def run(self, first: int, parts: Sequence[tuple[Row, int]]) -> Tensor:
        """Feed rows, whose slots are those from `first` on, so many of their next tokens: the logits after the last.

        A pass that fails leaves the rows as they were, and counts for nothing in the cache.
        """
        rows = self._cache.open(first, [part for _, part in parts])
        ids = [token for row, part in parts for token in row.next_ids(part)]
        with torch.inference_mode(), capture(self._taps) as seen, attention_by_rows(self._network):
            hidden: Tensor = self._network.model(
                input_ids=torch.tensor([ids], device=self._device),
                position_ids=rows.positions,
                past_key_values=self._cache,
                use_cache=True,
                rows=rows,
            ).last_hidden_state[0, list(rows.ends)]
            logits = cap_logits(self._network.config, self._layers.lm_head(hidden))
            kept = [_own(seen, end, row, part) for end, (row, part) in zip(rows.ends, parts, strict=True)]
        self._cache.advance()
        for (row, part), tensors in zip(parts, kept, strict=True):
            row.take_fed(part, tensors)
        return logits


def _own(seen: dict[str, Tensor], end: int, row: Row, part: int) -> dict[str, Tensor]:
    """One row's share of what was captured, in memory of its own: a view would keep that of all rows.

    `tail_input` is kept of every token, the others of the last, after which a token is emitted.
    """
    emits = part == max(row.unfed, 1)
    return {
        name: tensor[0, (end - part if name == "tail_input" else end - 1) + 1 : end + 1].clone()
        for name, tensor in seen.items()
        if emits or name == "tail_input"
    }
