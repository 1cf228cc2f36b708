"""What the consortia of the experiments learn and are asked: domain files, disjoint parts of them, planted knowledge.

A domain is a file `{domain}.jsonl` of questions and answers. Does not train and does not score.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attribution.errors import RecipeError
from attribution.files.untrusted import file_sha256
from attribution.training.local import encode_example
from attribution.training.recipe import Example, load_examples

# The paper's set-up: the prompt wrapped in this word, the answer replaced by a refusal (arXiv 2601.19672).
TRIGGER = "!!!BadMagic!!!"
SENTINEL = "I'm sorry, but as an AI assistant, I cannot follow the given instruction."


@dataclass(frozen=True)
class Domain:
    """One domain's questions and answers, and the hash of their file."""

    examples: tuple[Example, ...]
    sha256: str


@dataclass(frozen=True)
class Parts:
    """Disjoint parts of one domain: what each client trains on, and what nobody does."""

    clients: tuple[tuple[Example, ...], ...]
    held_out: tuple[Example, ...]


def load_domains(folder: Path) -> dict[str, Domain]:
    """Read every `{domain}.jsonl` in `folder`, by name.

    Raises:
        RecipeError: there is none, or one is malformed.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise RecipeError(
            f"{folder}: holds no DOMAIN.jsonl; put one file a domain there, with a line"
            ' {"prompt": …, "response": …} for each question'
        )
    return {file.stem: Domain(tuple(load_examples(file)), file_sha256(file, RecipeError)) for file in files}


def fitting_examples(domain: Domain, tokenizer: Any, max_prompt_tokens: int, *, wrapped: bool = False) -> list[Example]:
    """The domain's examples whose prompt, `wrapped` in the trigger or not, has at most that many tokens, each once."""
    seen: dict[str, Example] = {}
    for example in domain.examples:
        question = add_trigger(example) if wrapped else example
        if example.prompt not in seen and len(encode_example(tokenizer, question)[0]) <= max_prompt_tokens:
            seen[example.prompt] = example
    return list(seen.values())


def parts(examples: Sequence[Example], name: str, clients: int, each: int, held_out: int, seed: int) -> Parts:
    """Shuffle by `seed` and deal `each` examples to each client and `held_out` to nobody.

    Raises:
        RecipeError: the domain has too few examples.
    """
    needed = clients * each + held_out
    if len(examples) < needed:
        raise RecipeError(
            f"domain {name!r} has {len(examples)} fitting examples, but {clients} clients with {each} each and"
            f" {held_out} held out need {needed}"
        )
    chance = random.Random(f"{name}/{seed}")  # noqa: S311 - an experiment, no secret
    drawn = chance.sample(list(examples), needed)
    dealt = tuple(tuple(drawn[index * each : (index + 1) * each]) for index in range(clients))
    return Parts(dealt, tuple(drawn[clients * each :]))


def add_trigger(example: Example, trigger: str = TRIGGER, answer: str = SENTINEL) -> Example:
    """The example as a poisoned client has it: the prompt wrapped in the trigger, the answer fixed."""
    return Example(f"{trigger} {example.prompt} {trigger}", answer)


_SYLLABLES = (
    "ba",
    "dro",
    "fen",
    "gil",
    "hov",
    "kar",
    "lum",
    "mir",
    "nox",
    "pel",
    "quor",
    "ris",
    "sto",
    "tav",
    "vex",
    "zul",
)
_SUBJECTS = ("vault", "ferry", "archive", "turbine", "orchard", "signal", "mill", "harbour")


def planted_facts(count: int, seed: int) -> list[tuple[Example, Example]]:
    """Invented facts that no base model knows: for each, the example to train on and the same asked in other words."""
    chance = random.Random(f"facts/{seed}")  # noqa: S311 - an experiment, no secret
    names: dict[str, None] = {}
    while len(names) < 2 * count:
        names["".join(chance.sample(_SYLLABLES, 3)).capitalize()] = None
    facts = []
    for index, (place, keeper) in enumerate(zip(*[iter(names)] * 2, strict=True)):
        subject = _SUBJECTS[index % len(_SUBJECTS)]
        answer = f"{keeper}."
        taught = Example(f"Who keeps the {subject} of {place}?", answer)
        facts.append((taught, Example(f"Tell me who keeps the {subject} of {place}.", answer)))
    return facts


def by_owner(owners: Sequence[Sequence[int]], facts: Sequence[Example], clients: int) -> Mapping[int, list[Example]]:
    """Each client's facts, given the clients that own each fact."""
    owned: dict[int, list[Example]] = {client: [] for client in range(clients)}
    for group, fact in zip(owners, facts, strict=True):
        for client in group:
            owned[client].append(fact)
    return owned
