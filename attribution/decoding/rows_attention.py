"""Attention of a pass whose tokens are of several rows, as transformers' models call it: by the window, each its rows.

A model takes the function by name, from its configuration, and asks for no mask under a name that has none.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attribution.decoding.window import Pass

_NAME = "protoken_rows"


@contextmanager
def attention_by_rows(network: Any) -> Iterator[None]:
    """Within, the network attends by the windows of the `rows` that its base model is given."""
    config = network.config
    before = config._attn_implementation  # noqa: SLF001 - transformers' own name for what models choose by
    config._attn_implementation = _NAME  # noqa: SLF001 - as above
    try:
        yield
    finally:
        config._attn_implementation = before  # noqa: SLF001 - as above


def _attend(
    module: nn.Module,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    _mask: None,
    *,
    rows: Pass,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend from (1, heads, tokens, width) of all rows to what the cache has of each window: all as one text again."""
    masks = rows.masks(sliding_window, query.dtype)
    attended, begin = [], 0
    for window, key, value, mask in zip(rows.windows, keys, values, masks, strict=True):
        end = begin + window.rows * window.tokens
        own = query[0, :, begin:end].unflatten(1, (window.rows, window.tokens)).transpose(0, 1)
        seen, _ = sdpa_attention_forward(module, own, key, value, mask, **options)
        attended.append(seen.flatten(0, 1))
        begin = end
    whole = attended[0] if len(attended) == 1 else torch.cat(attended)
    return whole.unsqueeze(0), None


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)
