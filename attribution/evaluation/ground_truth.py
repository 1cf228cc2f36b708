"""What coalitions of clients would have said: an honest, slow oracle for the shares that attribution estimates.

Two games behind one interface: coalition models put together from the delivered updates, or trained anew. Does not use
the fast path that it is compared with.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from attribution.base.layers import first_changed_block, head_of, tail_of
from attribution.base.references import load_model, resolve_base
from attribution.bundle.bundle import Bundle
from attribution.bundle.replacement import require_bundle_place
from attribution.errors import BundleError
from attribution.evaluation.shapley import PLAYERS_MAX, antithetic_orders, sampled_values, shapley_values
from attribution.progress import NoProgress, Progress
from attribution.records import Generation
from attribution.training.federate import build_bundle
from attribution.training.recipe import Recipe


@dataclass(frozen=True)
class ScoredResponse:
    """A response whose probability a game tells."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    temperature: float = 1.0

    @classmethod
    def from_generation(cls, generation: Generation) -> Self:
        """The response of a finished generation, at the temperature at which it is scored."""
        return cls(generation.prompt_token_ids, generation.token_ids, generation.sampling.scoring_temperature)


class Game(Protocol):
    """v(S) of a coalition S: the log-probability of each response under the model that S makes."""

    @property
    def players(self) -> tuple[str, ...]:
        """Client ids."""

    def log_probabilities(self, coalition: Collection[str], responses: Sequence[ScoredResponse]) -> Tensor:
        """Log p(response | prompt), summed over its tokens: (responses,) float64."""


@dataclass(frozen=True)
class Truth:
    """Each client's value of each response, (responses,) float64 by id; `gain` is v(all) − v(none).

    `coalition_values` (2^K, responses) holds v(S) − v(none) by bit mask, where all coalitions were asked for.
    `standard_errors` are those of the values, where these were sampled.
    """

    players: tuple[str, ...]
    values: Mapping[str, Tensor]
    gain: Tensor
    coalition_values: Tensor | None = None
    standard_errors: Mapping[str, Tensor] | None = None


def exact_shapley(game: Game, responses: Sequence[ScoredResponse], progress: Progress) -> Truth:
    """Exact Shapley values over all coalitions.

    Raises:
        BundleError: there are more than `PLAYERS_MAX` clients.
    """
    players = game.players
    if len(players) > PLAYERS_MAX:
        raise BundleError(f"{len(players)} clients have too many coalitions; exact Shapley takes up to {PLAYERS_MAX}")
    progress.start("asking every coalition", 1 << len(players))
    rows = []
    for mask in range(1 << len(players)):
        members = [player for place, player in enumerate(players) if mask >> place & 1]
        rows.append(game.log_probabilities(members, responses))
        progress.advance()
    table = torch.stack(rows)
    table = table - table[0]
    values = dict(zip(players, shapley_values(table), strict=True))
    return Truth(players, values, table[-1], table)


def sampled_shapley(
    game: Game, responses: Sequence[ScoredResponse], pairs: int, seed: str, progress: Progress
) -> Truth:
    """Shapley values of any number of clients, from `pairs` orders of joining and their reverses, with standard errors.

    No value is biased, and those of a response sum to its gain exactly, as they do in every order by itself.
    """
    players = game.players
    orders = antithetic_orders(len(players), pairs, seed)
    coalitions = dict.fromkeys(frozenset(order[:size]) for order in orders for size in range(len(players) + 1))
    progress.start("asking sampled coalitions", len(coalitions))
    worth = {}
    for coalition in coalitions:
        worth[coalition] = game.log_probabilities([players[place] for place in sorted(coalition)], responses)
        progress.advance()
    values, errors = sampled_values(orders, worth)
    gain = worth[frozenset(range(len(players)))] - worth[frozenset()]
    by_player = dict(zip(players, values, strict=True))
    return Truth(players, by_player, gain, standard_errors=dict(zip(players, errors, strict=True)))


def coalitions_asked(players: int, pairs: int) -> int:
    """How many coalitions tell the values of so many clients: all, or the most that so many pairs of orders pass."""
    return 1 << players if players <= PLAYERS_MAX else 2 + 2 * pairs * (players - 1)


def leave_one_out(game: Game, responses: Sequence[ScoredResponse], progress: Progress) -> Truth:
    """v(all) − v(all but i); blind to what two clients both know."""
    players = game.players
    progress.start("leaving one out", len(players))
    whole = game.log_probabilities(players, responses)
    values = {}
    for others in combinations(players, len(players) - 1):
        (player,) = set(players) - set(others)
        values[player] = whole - game.log_probabilities(others, responses)
        progress.advance()
    gain = whole - game.log_probabilities((), responses)
    return Truth(players, {player: values[player] for player in players}, gain)


class ReconstructedGame:
    """θ_S = base + Σ_{i ∈ S} D_i: what the delivered updates do; the bundle's residual is nobody's."""

    def __init__(self, bundle: Bundle) -> None:
        self.players = bundle.client_ids
        self._updates = bundle.updates
        self._model = load_model(resolve_base(bundle.manifest.base.reference))
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        changed = sorted(set().union(*(update.parameters() for update in self._updates.values())))
        self._parameters = {name: parameters[name] for name in changed}
        self._base = {name: parameters[name].detach().clone() for name in changed}
        self._start = first_changed_block(self._model, changed)
        self._hidden: dict[ScoredResponse, Tensor] = {}

    def log_probabilities(self, coalition: Collection[str], responses: Sequence[ScoredResponse]) -> Tensor:
        """Log p(response | prompt) under θ_S: (responses,) float64."""
        self._become(coalition)
        return torch.tensor([self._log_probability(response) for response in responses], dtype=torch.float64)

    def _become(self, coalition: Collection[str]) -> None:
        """Write θ_S into the model, always from the base's own weights; tied names are one parameter."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(self._base[name])
            for name, parameter in self._parameters.items():
                for client in coalition:
                    difference = self._updates[client].difference(name)
                    if difference is not None:
                        parameter.add_(difference)

    def _log_probability(self, response: ScoredResponse) -> float:
        if self._start is None:
            return log_probability(self._model, response)
        if response not in self._hidden:  # what no client changed is the same for every coalition
            with torch.inference_mode():
                ids = torch.tensor([[*response.prompt_ids, *response.token_ids[:-1]]])
                before = head_of(self._model, self._start)(input_ids=ids, use_cache=False).last_hidden_state
            self._hidden[response] = before
        return log_probability(tail_of(self._model, self._start), response, inputs_embeds=self._hidden[response])


class RetrainedGame:
    """θ_S = FedAvg run anew with the clients of S alone: what would have happened without the others."""

    def __init__(self, recipe: Recipe, scratch: Path) -> None:
        self.players = tuple(client.id for client in recipe.clients)
        self._recipe, self._scratch = recipe, scratch
        self._seen: dict[frozenset[str], tuple[tuple[ScoredResponse, ...], Tensor]] = {}

    def log_probabilities(self, coalition: Collection[str], responses: Sequence[ScoredResponse]) -> Tensor:
        """Log p(response | prompt) under θ_S: (responses,) float64; a coalition is trained once."""
        members = frozenset(coalition)
        if members not in self._seen or self._seen[members][0] != tuple(responses):
            model = load_model(self._train(members))
            values = torch.tensor([log_probability(model, response) for response in responses], dtype=torch.float64)
            require_bundle_place(self._scratch)  # where nothing was trained, nothing there is ours
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._seen[members] = tuple(responses), values
        return self._seen[members][1]

    def _train(self, members: frozenset[str]) -> Path:
        clients = tuple(client for client in self._recipe.clients if client.id in members)
        if all(client.free_rider for client in clients):
            return resolve_base(self._recipe.base)
        recipe = self._recipe.model_copy(update={"clients": clients})
        return build_bundle(recipe, self._scratch, NoProgress()).global_path


def log_probability(model: Any, response: ScoredResponse, **inputs: Tensor) -> float:
    """Log p(response | prompt) of a causal model, in nats, at the response's temperature, by one plain pass."""
    ids = torch.tensor([[*response.prompt_ids, *response.token_ids[:-1]]])
    emitting = torch.arange(len(response.prompt_ids) - 1, ids.shape[1])
    with torch.inference_mode():
        logits = model(**(inputs or {"input_ids": ids}), use_cache=False, logits_to_keep=emitting).logits[0]
        log_p = torch.log_softmax(logits.double() / response.temperature, -1)
        return float(log_p.gather(-1, torch.tensor(response.token_ids).unsqueeze(-1)).sum())
