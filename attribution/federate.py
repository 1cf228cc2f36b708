"""Rounds of federated averaging over question–answer files (FedAvg: McMahan et al. 2017), written as a bundle.

Aggregation is exact: each round's client updates are merged as Σ_i ρ_i B_i A_i, never A and B apart, so
global = base + Σ_i D_i with no residual but rounding. Does not know prompts, scores or serving.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from attribution.bundle import Bundle
from attribution.errors import RecipeError
from attribution.layers import resolve_layers, tail_of
from attribution.models import load_model, load_tokenizer, resolve_base
from attribution.recipe import ClientRecipe, Recipe, load_examples
from attribution.training import CachedExample, cache_examples, train
from attribution.updates import LowRank, Update, weighted_sum
from attribution.writing import Member, write_bundle

__all__ = ["Progress", "build_bundle"]

_PROJECTIONS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


class Progress(Protocol):
    """Told how long a stage of the work is, and each time a piece of it is done."""

    def start(self, description: str, total: int) -> None:
        """A new stage of `total` pieces begins."""

    def advance(self) -> None:
        """One piece is done."""


class _Trainer(Protocol):
    """What is trained in each client's turn: `reset` to the global model, then `parameters` change, then `update`."""

    @property
    def parameters(self) -> Sequence[nn.Parameter]: ...
    def reset(self, seed: int) -> None: ...
    def update(self) -> Update: ...
    def merge(self, updates: Mapping[str, Update], weights: Mapping[str, float]) -> None: ...


def build_bundle(recipe: Recipe, target: Path, progress: Progress) -> Bundle:
    """Train the consortium of `recipe` and write it to `target`, whole or not at all; the same seed, the same bundle.

    Raises:
        RecipeError: a data file is malformed, or the recipe asks for more blocks than the model has.
        ModelError: the base model cannot be found or is not supported.
    """
    examples = {client.id: load_examples(client.data) for client in recipe.clients if client.data is not None}
    counts = {client.id: client.examples or len(examples[client.id]) for client in recipe.clients}
    weights = {client: count / sum(counts.values()) for client, count in counts.items()}
    base_path = resolve_base(recipe.base)
    model, tokenizer = load_model(base_path), load_tokenizer(base_path)
    first_block = _first_trained_block(recipe, len(resolve_layers(model).blocks))

    progress.start("running the frozen blocks", sum(len(each) for each in examples.values()))
    data = {
        client: cache_examples(model, tokenizer, first_block, each, progress.advance)
        for client, each in examples.items()
    }
    progress.start("training", recipe.rounds * recipe.steps * len(data))
    trainer = _FullTrainer(model, first_block) if recipe.full else _LoraTrainer(model, first_block, recipe)
    rounds = []
    for number in range(1, recipe.rounds + 1):
        updates = {
            client.id: _local_update(recipe, number, client, tail_of(model, first_block), trainer, data, progress)
            for client in recipe.clients
        }
        trainer.merge(updates, weights)
        rounds.append(updates)
    members = [
        Member(
            id=client.id,
            name=client.name,
            examples=counts[client.id],
            weight=weights[client.id],
            cumulative=weighted_sum([(weights[client.id], updates[client.id]) for updates in rounds]),
            last_round=rounds[-1][client.id],
        )
        for client in recipe.clients
    ]
    return write_bundle(target, recipe.consortium, recipe.base, recipe.rounds, members)


def _first_trained_block(recipe: Recipe, blocks: int) -> int:
    trained = math.ceil(blocks / 3) if recipe.trained_blocks is None else recipe.trained_blocks or blocks
    if trained > blocks:
        raise RecipeError(f"trained_blocks is {trained}, but {recipe.base} has {blocks} blocks")
    return blocks - trained


def _local_update(
    recipe: Recipe,
    number: int,
    client: ClientRecipe,
    tail: Any,
    trainer: _Trainer,
    data: Mapping[str, list[CachedExample]],
    progress: Progress,
) -> Update:
    """C_i^r − G^{r−1}: what one client's local training changed; a free rider returns the global model unchanged."""
    seed = _seed(recipe.seed, number, client.id)
    trainer.reset(seed)
    if not client.free_rider:
        batches = _batches(data[client.id], recipe.batch_size, recipe.steps, seed)
        train(tail, trainer.parameters, batches, recipe.learning_rate, progress.advance)
    return trainer.update()


def _batches(examples: Sequence[CachedExample], size: int, steps: int, seed: int) -> Iterator[list[CachedExample]]:
    """`steps` batches, running through a fresh permutation of the examples in each epoch."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    for _ in range(steps):
        while len(waiting) < min(size, len(examples)):
            waiting += torch.randperm(len(examples), generator=generator).tolist()
        taken, waiting = waiting[:size], waiting[size:]
        yield [examples[index] for index in taken]


def _seed(seed: int, number: int, client: str) -> int:
    digest = hashlib.sha256(f"{seed}/{number}/{client}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


class _LoraTrainer:
    """LoRA factors (Hu et al. 2021) on every projection of the trained blocks, fresh in each client's turn."""

    def __init__(self, model: Any, first_block: int, recipe: Recipe) -> None:
        blocks = range(first_block, len(model.model.layers))
        self._names = [f"model.layers.{block}.{projection}" for block in blocks for projection in _PROJECTIONS]
        config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=self._names, lora_dropout=0.0)
        inject_adapter_in_model(config, model)
        self._layers = {name: model.get_submodule(name) for name in self._names}
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def reset(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in self._layers.values():
                layer.reset_lora_parameters("default", init_lora_weights=True)

    def update(self) -> Update:
        def factors(layer: Any) -> LowRank:
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            return LowRank(A.detach().clone(), layer.scaling["default"] * B.detach())

        return Update({name: factors(layer) for name, layer in self._layers.items()})

    def merge(self, updates: Mapping[str, Update], weights: Mapping[str, float]) -> None:
        for name, layer in self._layers.items():
            for client, update in updates.items():
                layer.base_layer.weight += weights[client] * update.low_rank[name].dense()


class _FullTrainer:
    """Every parameter of the trained blocks."""

    def __init__(self, model: Any, first_block: int) -> None:
        prefixes = tuple(f"model.layers.{block}." for block in range(first_block, len(model.model.layers)))
        self._trained = {name: value for name, value in model.named_parameters() if name.startswith(prefixes)}
        self._global: dict[str, Tensor] = {name: value.detach().clone() for name, value in self._trained.items()}
        self.parameters = [value.requires_grad_() for value in self._trained.values()]

    def reset(self, seed: int) -> None:  # noqa: ARG002 - whole weights start from the global model, not from a draw
        with torch.no_grad():
            for name, value in self._trained.items():
                value.copy_(self._global[name])

    def update(self) -> Update:
        return Update(dense={name: value.detach() - self._global[name] for name, value in self._trained.items()})

    def merge(self, updates: Mapping[str, Update], weights: Mapping[str, float]) -> None:
        for client, update in updates.items():
            for name, difference in update.dense.items():
                self._global[name] += weights[client] * difference
