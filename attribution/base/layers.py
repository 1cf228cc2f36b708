"""Where things are inside a causal language model, resolved once by name, and how to run only a part of it.

Does not know clients, updates or scores.
"""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attribution.errors import ModelError

# Each is tested against the literal reference; another architecture joins by joining those tests.
SUPPORTED = ("gemma3_text", "llama", "qwen2", "qwen3")
_T = TypeVar("_T", bound=nn.Module)
_BLOCK = re.compile(r"^model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Layers:
    """The named parts of one model that attribution touches."""

    blocks: nn.ModuleList
    last_block: nn.Module
    o_proj: nn.Linear
    mlp: nn.Module
    norm: nn.Module
    lm_head: nn.Linear
    last_block_name: str

    @property
    def mlp_name(self) -> str:
        """Name of the last MLP block, as parameters are prefixed."""
        return f"{self.last_block_name}.mlp"

    @property
    def o_proj_name(self) -> str:
        """Name of the last attention's output projection."""
        return f"{self.last_block_name}.self_attn.o_proj"


def resolve_layers(model: Any) -> Layers:
    """Find the layers that attribution needs.

    Raises:
        ModelError: the architecture is not one that was tested, or lacks a layer under its usual name.
    """
    kind = model.config.model_type
    if kind not in SUPPORTED:
        raise ModelError(f"architecture {kind!r} is not supported; supported are {', '.join(SUPPORTED)}")
    blocks = _child(model, "model.layers", nn.ModuleList, kind)
    last = f"model.layers.{len(blocks) - 1}"
    for projection in ("gate_proj", "up_proj", "down_proj"):
        _child(model, f"{last}.mlp.{projection}", nn.Linear, kind)
    return Layers(
        blocks=blocks,
        last_block=blocks[-1],
        o_proj=_child(model, f"{last}.self_attn.o_proj", nn.Linear, kind),
        mlp=_child(model, f"{last}.mlp", nn.Module, kind),
        norm=_child(model, "model.norm", nn.Module, kind),
        lm_head=_child(model, "lm_head", nn.Linear, kind),
        last_block_name=last,
    )


def first_changed_block(model: Any, parameters: Iterable[str]) -> int | None:
    """Index of the first block that holds one of `parameters`; None when the embedding itself is among them.

    Changes behind the last block (final norm, an untied head) give the number of blocks.
    """
    embeddings = {id(model.get_input_embeddings().weight)}
    by_name = dict(model.named_parameters(remove_duplicate=False))
    first = len(model.model.layers)
    for name in parameters:
        if id(by_name[name]) in embeddings:  # also under its other name, where lm_head is tied to it
            return None
        block = _BLOCK.match(name)
        if block:
            first = min(first, int(block.group(1)))
    return first


def tail_of(model: Any, first_block: int) -> Any:
    """The same model, sharing all weights, that begins at `first_block`: `inputs_embeds` is then that block's input."""
    blocks = model.model.layers
    kept = [_Skip() if index < first_block else block for index, block in enumerate(blocks)]
    return with_children(model, model=with_children(model.model, layers=nn.ModuleList(kept)))


def head_of(model: Any, end_block: int) -> Any:
    """The decoder up to the input of `end_block`: its `last_hidden_state` is what enters that block."""
    blocks = model.model.layers
    kept = [block if index < end_block else _Skip() for index, block in enumerate(blocks)]
    return with_children(model.model, layers=nn.ModuleList(kept), norm=nn.Identity())


class _Skip(nn.Module):
    """Stands in for a decoder block that is not run, so that block numbers and parameter names stay as they are."""

    def forward(self, hidden_states: Tensor, **_: object) -> Tensor:
        return hidden_states


def with_children(module: Any, **children: nn.Module) -> Any:
    """A shallow copy of `module` with some children exchanged; `module` itself is left as it was."""
    clone = copy.copy(module)
    clone._modules = {**module._modules, **children}  # noqa: SLF001 - nn.Module offers no other way to share children
    return clone


def cap_logits(config: Any, logits: Tensor) -> Tensor:
    """Logits as the model emits them: some architectures squash them to ± a cap."""
    cap: float | None = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _child(model: nn.Module, name: str, kind: type[_T], architecture: str) -> _T:
    try:
        child = model.get_submodule(name)
    except AttributeError:
        raise ModelError(f"architecture {architecture!r}: no layer named {name!r}") from None
    if not isinstance(child, kind):
        raise ModelError(
            f"architecture {architecture!r}: layer {name!r} is a {type(child).__name__}, not {kind.__name__}"
        )
    return child
