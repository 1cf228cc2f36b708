"""What a client trains in its turn: LoRA factors on the projections of the last blocks, or all their weights.

One trainer serves all clients, one after another, and holds the global model of the round. Does not know examples,
rounds or who trains.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from attribution.bundle.updates import LowRank, Update

_PROJECTIONS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


class Trainer(Protocol):
    """`reset` to the global model, then `parameters` are trained in place, then `update` is what has changed."""

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """What an optimiser has to change."""

    def reset(self, seed: int) -> None:
        """Begin a client's turn at the global model."""

    def update(self) -> Update:
        """What the turn changed: C_i^r − G^{r−1}."""

    def merge(self, change: Update) -> None:
        """Move the global model by a round's aggregate change."""


class LoraTrainer:
    """LoRA factors (Hu et al. 2021) on every projection of the trained blocks, fresh in each client's turn."""

    def __init__(self, model: Any, first_block: int, rank: int, alpha: float) -> None:
        blocks = range(first_block, len(model.model.layers))
        self._names = [f"model.layers.{block}.{projection}" for block in blocks for projection in _PROJECTIONS]
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=self._names, lora_dropout=0.0)
        inject_adapter_in_model(config, model)
        self._layers = {name: model.get_submodule(name) for name in self._names}
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def reset(self, seed: int) -> None:
        """Begin a client's turn with factors that change nothing yet."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in self._layers.values():
                layer.reset_lora_parameters("default", init_lora_weights=True)

    def update(self) -> Update:
        """What the turn changed, the scaling alpha / rank within B."""

        def factors(layer: Any) -> LowRank:
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            return LowRank(A.detach().clone(), layer.scaling["default"] * B.detach())

        return Update({name: factors(layer) for name, layer in self._layers.items()})

    def merge(self, change: Update) -> None:
        """Move the global model by a round's aggregate change."""
        for name, low_rank in change.low_rank.items():
            self._layers[name].base_layer.weight += low_rank.dense()


class FullTrainer:
    """Every parameter of the trained blocks."""

    def __init__(self, model: Any, first_block: int) -> None:
        prefixes = tuple(f"model.layers.{block}." for block in range(first_block, len(model.model.layers)))
        self._trained = {name: value for name, value in model.named_parameters() if name.startswith(prefixes)}
        self._global: dict[str, Tensor] = {name: value.detach().clone() for name, value in self._trained.items()}
        self.parameters = [value.requires_grad_() for value in self._trained.values()]

    def reset(self, seed: int) -> None:  # noqa: ARG002 - whole weights start from the global model, not from a draw
        """Begin a client's turn at the global model."""
        with torch.no_grad():
            for name, value in self._trained.items():
                value.copy_(self._global[name])

    def update(self) -> Update:
        """What the turn changed."""
        return Update(dense={name: value.detach() - self._global[name] for name, value in self._trained.items()})

    def merge(self, change: Update) -> None:
        """Move the global model by a round's aggregate change."""
        for name, difference in change.dense.items():
            self._global[name] += difference
