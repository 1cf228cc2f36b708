"""The harness of experiments: the base model, the domains, a folder of bundles built once, answers and their scores.

Knows how a consortium is trained and asked; does not know what any experiment is after.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from attribution.attribute import attribute
from attribution.base.references import load_tokenizer, resolve_base, weights_sha256
from attribution.bundle.bundle import Bundle, open_bundle
from attribution.decoding.decode import Batch
from attribution.errors import AttributionError
from attribution.evaluation.data import Domain, Parts, fitting_examples, parts
from attribution.files.strict import StrictDocument
from attribution.model import FederatedModel
from attribution.progress import Progress
from attribution.records import AttributedResponse, Generation, Sampling
from attribution.training.aggregation import Defences
from attribution.training.federate import Federation
from attribution.training.recipe import ClientRecipe, Example, Recipe

_ROWS_AT_ONCE = 8


class Training(StrictDocument):
    """How the consortia of an experiment train; the words are the recipe's."""

    rounds: int = Field(default=2, ge=1)
    steps: int = Field(default=10, ge=1)
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=32, gt=0)
    trained_blocks: int | None = Field(default=None, ge=0)
    full: bool = False
    max_tokens: int = Field(default=128, ge=8)


@dataclass(frozen=True)
class Participant:
    """One client of an experiment: what it trains on, and how many examples it declares (default: what it has)."""

    id: str
    examples: Sequence[Example] = ()
    declared: int | None = None

    @property
    def free_rider(self) -> bool:
        """A client without examples trains on nothing."""
        return not self.examples


@dataclass
class Harness:
    """What the experiments of one run share; `label` is how reports name the base model, if not by its reference."""

    base: str
    domains: Mapping[str, Domain]
    folder: Path
    progress: Progress
    label: str = ""

    @cached_property
    def base_sha256(self) -> str:
        """One hash for the base model's files, which are read once in a run."""
        return weights_sha256(resolve_base(self.base))

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return load_tokenizer(resolve_base(self.base))

    def domain_names(self, chosen: Sequence[str]) -> list[str]:
        """The chosen domains, or all there are.

        Raises:
            AttributionError: a chosen domain has no file.
        """
        for name in chosen:
            if name not in self.domains:
                known = ", ".join(self.domains) or "none; give --data FOLDER"
                raise AttributionError(f"domain {name!r} has no file; there are: {known}")
        names = list(chosen) or list(self.domains)
        if not names:
            raise AttributionError("this experiment needs question–answer files: give --data FOLDER of DOMAIN.jsonl")
        return names

    def parts(
        self, domain: str, clients: int, each: int, held_out: int, seed: int, max_tokens: int, *, wrapped: bool = False
    ) -> Parts:
        """Deal a domain's examples out; prompts, `wrapped` or not, leave the answer a quarter of `max_tokens`."""
        usable = fitting_examples(self.domains[domain], self.tokenizer, max_tokens * 3 // 4, wrapped=wrapped)
        return parts(usable, domain, clients, each, held_out, seed)

    @contextmanager
    def federation(
        self,
        training: Training,
        participants: Sequence[Participant],
        seed: int,
        *,
        clients_per_round: int | None = None,
        defences: Defences | None = None,
    ) -> Iterator[Federation]:
        """A consortium about to train, from question–answer files as any operator would write them."""
        recipe = self.recipe(
            training, participants, seed, clients_per_round=clients_per_round, defences=defences or Defences()
        )
        with Federation(recipe, self.progress) as federation:
            yield federation

    def bundle(self, training: Training, participants: Sequence[Participant], seed: int) -> Bundle:
        """The consortium after all rounds, built once for each recipe, base and data, and then kept."""
        recipe = self.recipe(training, participants, seed)
        folder = self.folder / "bundles" / self.key(training, participants, seed)
        if not (folder / "consortium.json").is_file():
            with Federation(recipe, self.progress) as federation:
                federation.run(folder)
        return open_bundle(folder)

    def key(self, training: Training, participants: Sequence[Participant], seed: int) -> str:
        """A name for what this consortium's training gives: a hash of the base model, the data and the settings."""
        document = {
            "base": self.base_sha256,
            "training": training.model_dump(),
            "seed": seed,
            "participants": [
                (each.id, each.declared, [(e.prompt, e.response) for e in each.examples]) for each in participants
            ],
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A folder for a bundle that is not kept."""
        folder = self.folder / "scratch" / name
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def recipe(self, training: Training, participants: Sequence[Participant], seed: int, **more: Any) -> Recipe:
        """The recipe of a consortium, its question–answer files written beside the bundles."""
        folder = self.folder / "data" / self.key(training, participants, seed)
        folder.mkdir(parents=True, exist_ok=True)
        clients = []
        for each in participants:
            path = None if each.free_rider else folder / f"{each.id}.jsonl"
            if path is not None:
                lines = [json.dumps({"prompt": e.prompt, "response": e.response}) for e in each.examples]
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            clients.append(
                ClientRecipe(id=each.id, name=each.id, data=path, free_rider=each.free_rider, examples=each.declared)
            )
        return Recipe(
            consortium="evaluation", base=self.base, seed=seed, clients=tuple(clients), **training.model_dump(), **more
        )


def encode(model: FederatedModel, prompt: str) -> list[int]:
    """Token ids of a question, in the chat template where the model has one, as in training."""
    if model.tokenizer.chat_template is None:
        return model.encode_text(prompt)
    return model.encode_chat([{"role": "user", "content": prompt}])


def answers(
    model: FederatedModel, prompts: Sequence[str], max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0
) -> list[Generation]:
    """The model's answers, greedy unless a temperature is given, in the order of the prompts; always the same."""
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=0)
    generations: list[Generation] = []
    for start in range(0, len(prompts), _ROWS_AT_ONCE):
        batch = Batch(model)
        rows = [str(number) for number in range(len(prompts[start : start + _ROWS_AT_ONCE]))]
        for row, prompt in zip(rows, prompts[start:], strict=False):
            batch.join(row, encode(model, prompt), sampling)
        while len(batch):
            batch.step()
        generations += [batch.leave(row) for row in rows]
    return generations


def score(model: FederatedModel, generation: Generation) -> dict[str, AttributedResponse]:
    """The response under both presets, by name."""
    return {
        "paper": attribute(model, generation, method="paper"),
        "credit": attribute(model, generation, method="credit"),
    }
