"""Rounds of federated averaging over question–answer files (FedAvg: McMahan et al. 2017), written as a bundle.

Aggregation is exact: each round's client updates are merged as Σ_i ρ_i B_i A_i, never A and B apart, so
global = base + Σ_i D_i with no residual but rounding. Does not know prompts, scores or serving.
"""

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch

from attribution.base.layers import resolve_layers, tail_of
from attribution.base.references import load_model, load_tokenizer, resolve_base
from attribution.bundle.bundle import Bundle
from attribution.bundle.replacement import require_bundle_place
from attribution.bundle.updates import Update, load_update, save_update, weighted_sum
from attribution.bundle.writing import Member, write_bundle
from attribution.errors import RecipeError
from attribution.progress import Progress
from attribution.training.aggregation import Aggregation, Defences, Previous, aggregate
from attribution.training.batches import batches_of, seed_of
from attribution.training.local import cache_examples, train
from attribution.training.recipe import ClientRecipe, Recipe, load_examples
from attribution.training.trainers import FullTrainer, LoraTrainer, Trainer


def build_bundle(recipe: Recipe, target: Path, progress: Progress) -> Bundle:
    """Train the consortium of `recipe` and write it to `target`, whole or not at all; the same seed, the same bundle.

    Raises:
        RecipeError: a data file is malformed, or the recipe asks for more blocks than the model has.
        ModelError: the base model cannot be found or is not supported.
        DestinationError: there is something at `target` that is no bundle, or nothing can be written there.
    """
    require_bundle_place(target, recipe.base, recipe.consortium)
    with Federation(recipe, progress) as federation:
        return federation.run(target)


class Federation:
    """A consortium in training, round by round; a context manager, since whole updates wait in a scratch folder.

    Attributes:
        round: how many rounds have been merged.
        remarks: what the aggregator's defences did, a sentence each.
    """

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        self._recipe, self._progress = recipe, progress
        examples = {client.id: load_examples(client.data) for client in recipe.clients if client.data is not None}
        self._declared = {client.id: client.examples or len(examples[client.id]) for client in recipe.clients}
        base_path = resolve_base(recipe.base)
        self._model, tokenizer = load_model(base_path), load_tokenizer(base_path)
        self._first_block = _first_trained_block(recipe, len(resolve_layers(self._model).blocks))
        progress.start("running the frozen blocks", sum(len(each) for each in examples.values()))
        self._data = {
            client: cache_examples(self._model, tokenizer, self._first_block, each, progress.advance, recipe.max_tokens)
            for client, each in examples.items()
        }
        self._trainer: Trainer = (
            FullTrainer(self._model, self._first_block)
            if recipe.full
            else LoraTrainer(self._model, self._first_block, recipe.rank, recipe.alpha)
        )
        self._scratch = Path(tempfile.mkdtemp(prefix="protoken-federation-"))
        self._cumulative: dict[str, Update] = {client.id: Update() for client in recipe.clients}
        self._submitted: dict[str, Update] = {}  # each client's latest
        self._last: Aggregation | None = None
        self.round = 0
        self.remarks: list[str] = []
        trained = len(self._data) if recipe.clients_per_round is None else recipe.clients_per_round
        progress.start("training", recipe.rounds * recipe.steps * trained)

    @property
    def change(self) -> Update | None:
        """What the last round changed in the global model; every client saw it."""
        return None if self._last is None else self._last.change

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, target: Path) -> Bundle:
        """All rounds of the recipe, written to `target`, whole or not at all."""
        # Before the training, which may take hours.
        require_bundle_place(target, self._recipe.base, self._recipe.consortium)
        for _ in range(self._recipe.rounds):
            self.merge(self.local_updates())
        return self.write(target)

    def local_updates(self) -> dict[str, Update]:
        """C_i^r − G^{r−1} of each client that the next round draws: what its local training changed."""
        return {client.id: self._local_update(client) for client in self._participants()}

    def merge(self, submitted: Mapping[str, Update]) -> None:
        """Aggregate what the clients submitted, under the recipe's defences, and move the global model by it."""
        previous = None if self._last is None else Previous(self._last.change, self._submitted)
        declared = {client: self._declared[client] for client in submitted}
        aggregation = aggregate(submitted, declared, self._recipe.defences, previous)
        self.round += 1
        self.remarks += [f"round {self.round}: {remark}" for remark in aggregation.remarks]
        for client, update in aggregation.updates.items():
            terms = [(1.0, self._cumulative[client]), (aggregation.weights[client], update)]
            self._cumulative[client] = self._keep_on_disk(weighted_sum(terms), f"{client}.{self.round}.cumulative")
        self._trainer.merge(aggregation.change)
        self._submitted |= submitted
        self._last = aggregation

    def write(self, target: Path) -> Bundle:
        """Write the consortium as it stands after the rounds so far to `target`, whole or not at all."""
        assert self._last is not None, "no round has been merged"
        members = [
            Member(
                id=client.id,
                name=client.name,
                examples=self._declared[client.id],
                weight=self._last.weights.get(client.id, 0.0),
                cumulative=self._cumulative[client.id],
                last_round=self._last.updates.get(client.id),
            )
            for client in self._recipe.clients
        ]
        chosen = self._recipe.defences
        defences = None if chosen == Defences() else chosen.model_dump()
        return write_bundle(target, self._recipe.consortium, self._recipe.base, self.round, members, defences)

    def _participants(self) -> Sequence[ClientRecipe]:
        drawn = self._recipe.clients_per_round
        if drawn is None:
            return self._recipe.clients
        generator = torch.Generator().manual_seed(seed_of(self._recipe.seed, self.round + 1, ""))
        chosen = set(torch.randperm(len(self._recipe.clients), generator=generator)[:drawn].tolist())
        return [client for index, client in enumerate(self._recipe.clients) if index in chosen]

    def _local_update(self, client: ClientRecipe) -> Update:
        """What one client's local training changed; a free rider returns the global model unchanged."""
        recipe = self._recipe
        seed = seed_of(recipe.seed, self.round + 1, client.id)
        self._trainer.reset(seed)
        if not client.free_rider:
            batches = batches_of(self._data[client.id], recipe.batch_size, recipe.steps, seed)
            tail = tail_of(self._model, self._first_block)
            train(tail, self._trainer.parameters, batches, recipe.learning_rate, self._progress.advance)
        return self._keep_on_disk(self._trainer.update(), f"{client.id}.{self.round + 1}.submitted")

    def _keep_on_disk(self, update: Update, name: str) -> Update:
        """The same update; whole differences wait on disk, so that no more than one client's is in memory."""
        if not update.dense:
            return update
        path = self._scratch / f"{name}.safetensors"
        save_update(update, path)
        return load_update(path)


def _first_trained_block(recipe: Recipe, blocks: int) -> int:
    trained = math.ceil(blocks / 3) if recipe.trained_blocks is None else recipe.trained_blocks or blocks
    if trained > blocks:
        raise RecipeError(f"trained_blocks is {trained}, but {recipe.base} has {blocks} blocks")
    return blocks - trained
