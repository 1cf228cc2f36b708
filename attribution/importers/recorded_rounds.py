"""A bundle from rounds as they were recorded: what each client changed in all of them, and what the server did besides.

D_i = Σ_r ρ_i^r (C_i^r − G^{r−1}), in the space of merged weights; the global model is the one that the aggregator made,
and what the clients' parts do not explain of it is the server's. One client's update is held at a time. Does not know
whose statements hold.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from attribution.base.layers import resolve_layers
from attribution.base.references import load_model, resolve_base
from attribution.bundle.bundle import Bundle
from attribution.bundle.manifest import AbsenceEntry, RoundEntry, UpdateEntry
from attribution.bundle.replacement import require_bundle_place
from attribution.bundle.similarity import norms
from attribution.bundle.suspicions import round_suspicions
from attribution.bundle.updates import LowRank, Update
from attribution.bundle.writing import Member, write_recorded_bundle
from attribution.errors import BundleError
from attribution.files.torch_tensors import is_finite
from attribution.importers.base_names import other_base
from attribution.importers.recorded_states import Places, State, places_of
from attribution.importers.round_sums import (
    factor_differences,
    low_rank_change,
    low_rank_residual,
    low_rank_sum,
    trained_difference,
)
from attribution.rounds.documents import FEDERATION_NAME, Round
from attribution.rounds.reading import RecordedRounds, read_federation, read_rounds

_LOG = logging.getLogger(__name__)


Receipts = Mapping[tuple[int, str], str]
"""What the aggregator signed for each update that it has, by round and client."""


def _no_receipts(_recorded: RecordedRounds) -> Receipts:
    return {}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch work in one thread, and then in as many as before.

    The factors are small: threads wait for each other longer than they compute. Beside other work on two processors,
    330 updates of SmolLM2-135M took two threads 141 s of processors, and one 36 s.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def import_rounds(
    folder: Path,
    base: str,
    target: Path,
    remark: Callable[[str], None] = _LOG.warning,
    admit: Callable[[RecordedRounds], Receipts] = _no_receipts,
) -> Bundle:
    """Add up the rounds in `folder`, which were trained over `base`, and write the bundle to `target`.

    `remark` is told, a sentence each, of an adapter that says it was trained over another base model, and of updates
    that look scaled, too heavy or sent again: they were averaged already, so that nothing is cut. `admit` is asked
    before anything is added up: it may refuse the rounds, and gives the receipts to be kept beside the updates.

    Raises:
        RoundsError: a round is missing, altered, or does not follow the one before.
        BundleError: what was recorded does not fit the base model, is not finite, or is of a kind not supported.
        ModelError: the base model cannot be found or is not supported.
        DestinationError: there is something at `target` that is no bundle, or nothing can be written there.
    """
    federation = read_federation(folder)
    require_bundle_place(target, base, federation.consortium)
    adapter, base_path = federation.adapter, resolve_base(base)
    model, written = load_model(base_path), f"{folder / FEDERATION_NAME}: adapter"
    resolve_layers(model)
    recorded = read_rounds(folder, lambda first: places_of(first, model, adapter, written))
    receipts = admit(recorded)
    named = None if adapter is None else adapter.get("base_model_name_or_path")
    if isinstance(named, str) and (other := other_base(named, base, base_path)):
        remark(
            f"{written}: says that it was trained on {other!r}, but is merged into {base!r}; if these are not the same"
            " weights, what it adds means nothing"
        )
    places = places_of(recorded.global_path(0), model, adapter, written)
    training = _Training(recorded, places)
    start_norm = training.start_norm(model)
    entries = [training.entry(each, receipts) for each in recorded.rounds]
    for suspicion in round_suspicions(entries):
        remark(suspicion)
    training.merge(model)
    return write_recorded_bundle(
        target, recorded.federation.consortium, base, model, training.members(), start_norm, entries
    )


class _Training:
    """The rounds of a folder with all that was sent, memory-mapped; nothing is kept of what was computed."""

    def __init__(self, recorded: RecordedRounds, places: Places) -> None:
        self._recorded = recorded
        self._places = places
        self._globals = [State(recorded.global_path(number), places) for number in range(len(recorded.rounds) + 1)]
        for state in self._globals:
            state.check()

    def start_norm(self, model: Any) -> float:
        """Norm of what training began with, beyond the base model."""
        square = 0.0
        for layer, factors in self._places.factors.items():
            start = self._globals[0].factors(layer)
            square += _square(LowRank(start.A, factors.scaling * start.B))
        for name in self._places.whole:
            square += float((self._globals[0].whole(name).double() - model.get_parameter(name)).square().sum())
        return _finite_root(square, self._recorded.global_path(0))

    def entry(self, each: Round, receipts: Receipts) -> RoundEntry:
        """What a round was, with the norms of all parts."""
        sent = {update.client: self._state(each, update.client) for update in each.updates}
        for state in sent.values():
            state.check()
        weights = _weights(each)
        squares, residual = dict.fromkeys(sent, 0.0), 0.0
        for measured in (self._measured_layers(each, sent, weights), self._measured_parameters(each, sent, weights)):
            for left, of_clients in measured:
                residual += left
                for client, square in of_clients.items():
                    squares[client] += square
        lengths = {
            client: _finite_root(square, self._recorded.update_path(each.round, client))
            for client, square in squares.items()
        }
        return RoundEntry(
            round=each.round,
            before_sha256=each.before_sha256,
            after_sha256=each.after_sha256,
            residual_norm=_finite_root(residual, self._recorded.global_path(each.round)),
            updates=tuple(
                UpdateEntry(
                    client=update.client,
                    declared=update.weight,
                    weight=weights[update.client],
                    norm=lengths[update.client],
                    sha256=update.sha256,
                    statement=update.statement,
                    receipt=receipts.get((each.round, update.client)),
                )
                for update in each.updates
            ),
            missing=tuple(AbsenceEntry(**absence.model_dump()) for absence in each.missing),
        )

    def members(self) -> Iterator[Member]:
        """Each member with what it changed, one at a time; who never took part changed nothing."""
        last = self._recorded.rounds[-1]
        for member in self._recorded.federation.members:
            own = [each for each in self._recorded.rounds if member.client in _weights(each)]
            took_part = bool(own) and own[-1] is last
            yield Member(
                id=member.client,
                name=member.name,
                examples=None,
                weight=_weights(last).get(member.client, 0.0),
                cumulative=self._sum(member.client, [(_weights(each)[member.client], each) for each in own]),
                last_round=self._sum(member.client, [(1.0, last)]) if took_part else None,
                signing_key=member.signing_key,
            )

    def merge(self, model: Any) -> None:
        """Make of the base model what the last round ended with."""
        last = self._globals[-1]
        with torch.no_grad():
            for layer, factors in self._places.factors.items():
                end = last.factors(layer)
                weight = model.get_parameter(f"{layer}.weight").add_((factors.scaling * end.B) @ end.A)
                if not is_finite(weight):
                    path = self._recorded.global_path(len(self._recorded.rounds))
                    raise BundleError(f"{path}: layer {layer!r} is infinite once its factors are multiplied")
            for name in self._places.whole:
                model.get_parameter(name).copy_(last.whole(name))

    def _state(self, each: Round, client: str) -> State:
        return State(self._recorded.update_path(each.round, client), self._places)

    def _sum(self, client: str, terms: Sequence[tuple[float, Round]]) -> Update:
        """Σ w (C − G) of what a client sent; what it left alone is not in it."""
        states = [(weight, self._state(each, client), self._globals[each.round - 1]) for weight, each in terms]
        low_rank, dense = {}, {}
        for layer, factors in self._places.factors.items():
            changes = []
            for weight, sent, state in states:
                before = state.factors(layer)
                differences = factor_differences(sent.factors(layer), before)
                changes.append((weight, low_rank_change(differences, before, factors.scaling)))
            total = low_rank_sum(changes) if changes else None
            if total is not None and len(total.A):
                low_rank[layer] = total
        for name in self._places.whole:
            whole = torch.zeros(())
            for weight, sent, state in states:
                whole = whole + weight * trained_difference(sent.whole(name), state.whole(name))
            if whole.any():
                dense[name] = whole
        return Update(low_rank, dense)

    def _measured_layers(
        self, each: Round, sent: Mapping[str, State], weights: Mapping[str, float]
    ) -> Iterator[tuple[float, dict[str, float]]]:
        """Squares of the residual's norm and of each client's, layer by layer."""
        for layer, factors in self._places.factors.items():
            before, after = (self._globals[number].factors(layer) for number in (each.round - 1, each.round))
            differences = {client: factor_differences(state.factors(layer), before) for client, state in sent.items()}
            residual = low_rank_residual(
                after, before, [(weights[client], change) for client, change in differences.items()], factors.scaling
            )
            yield (
                _square(residual),
                {
                    client: _square(low_rank_change(change, before, factors.scaling))
                    for client, change in differences.items()
                },
            )

    def _measured_parameters(
        self, each: Round, sent: Mapping[str, State], weights: Mapping[str, float]
    ) -> Iterator[tuple[float, dict[str, float]]]:
        """The same of whole parameters."""
        for name in self._places.whole:
            before, after = (self._globals[number].whole(name) for number in (each.round - 1, each.round))
            left, squares = after.double() - before, {}
            for client, state in sent.items():
                change = trained_difference(state.whole(name), before).double()
                squares[client] = float(change.square().sum())
                left -= weights[client] * change
            yield float(left.square().sum()), squares


def _weights(each: Round) -> dict[str, float]:
    """ρ of each client in a round."""
    whole = math.fsum(update.weight for update in each.updates)
    return {update.client: update.weight / whole for update in each.updates}


def _finite_root(square: float, path: Path) -> float:
    """The norm of what a file changed, from its square; numbers that are finite each may have none."""
    if not math.isfinite(square):
        raise BundleError(f"{path}: what it changes is too large for 32 bits: its norm is not finite")
    return math.sqrt(square)


def _square(factors: LowRank) -> float:
    return float(norms([Update({"layer": factors})])[0]) ** 2
