"""What is remembered of a response while it is decoded, for scoring it afterwards. Does not score."""

from enum import Flag, auto
from typing import Any, Protocol

import torch

from attribution.base.layers import Layers
from attribution.decoding.capture import Tap


class Captures(Flag):
    """Which of `Generation`'s tensors are kept; each costs its width, in the network's dtype, for every position.

    `CREDIT` keeps `tail_input`, one row for each token of prompt and response: the preset `credit` then need not run
    the part of the network that nobody changed. `PAPER` keeps `block_input`, `o_proj_input` and `o_proj_output`, one
    row each for each token of the response. Who scores from token ids needs `NONE`.
    """

    NONE = 0
    CREDIT = auto()
    PAPER = auto()
    ALL = CREDIT | PAPER


class TappedModel(Protocol):
    """What taps need of a `FederatedModel`."""

    network: Any
    layers: Layers
    first_block: int | None


class DecodedModel(TappedModel, Protocol):
    """What decoding needs of a `FederatedModel`."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""

    @property
    def context_length(self) -> int:
        """Tokens that prompt and response may have together."""

    @property
    def backend_tokenizer(self) -> Any:
        """The fast tokenizer of the `tokenizers` library."""

    @property
    def end_token_ids(self) -> set[int]:
        """Tokens that end a response."""


def taps(model: TappedModel, captures: Captures = Captures.ALL) -> dict[str, Tap]:
    """Where a model is tapped while it decodes, by the names of `Generation`'s tensors."""
    layers = model.layers
    taps_of_model = {}
    if Captures.PAPER in captures:
        taps_of_model = {
            "block_input": Tap(layers.last_block, "input"),
            "o_proj_input": Tap(layers.o_proj, "input"),
            "o_proj_output": Tap(layers.o_proj, "output"),
        }
    if Captures.CREDIT in captures and model.first_block is not None:
        after_last = model.first_block == len(layers.blocks)
        taps_of_model["tail_input"] = Tap(layers.norm if after_last else layers.blocks[model.first_block], "input")
    return taps_of_model
