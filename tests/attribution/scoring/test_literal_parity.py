"""The fast scores against the slow literal reference, on every family and kind of update."""

import copy
from pathlib import Path

import pytest
import torch

from attribution.attribute import attribute
from attribution.bundle.updates import Update
from attribution.model import FederatedModel
from attribution.records import Sampling
from attribution.scoring.credit_preset import Effort
from tests.attribution import consortia
from tests.attribution.scoring.literal_reference import literal_credit, literal_greedy, literal_paper

TWO = Effort(nodes=2)
"""As many nodes as the reference takes."""

TOLERANCE = 1e-4  # relative to the largest score of the response (design 13)


def _federated(tmp_path: Path, model, updates, weights) -> FederatedModel:
    return FederatedModel.load(consortia.write_consortium(tmp_path, model, updates, weights))


def _dense(update: Update, model, weight: float = 1.0) -> dict[str, torch.Tensor]:
    names = dict(model.named_parameters())
    return {name: weight * update.difference(name) for name in update.parameters() if name in names}


def _whole_clients(model, updates, weights):
    """The last round's client models: base + Δ_i, since the round before the only one is the base."""
    clients = {}
    for client, update in updates.items():
        clients[client] = copy.deepcopy(model)
        for name, value in clients[client].named_parameters():
            change = update.difference(name)
            if change is not None:
                value.data += change
    return clients


def _assert_close(expected: dict[str, list[float]], actual: dict[str, tuple[float, ...]]) -> None:
    assert expected.keys() == actual.keys()
    reference = torch.tensor(list(expected.values()), dtype=torch.float64)
    found = torch.tensor(list(actual.values()), dtype=torch.float64)

    assert float((reference - found).abs().max() / reference.abs().max()) <= TOLERANCE


WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}
CASES = [(family, kind) for family in consortia.FAMILIES for kind in ("lora", "full", "everything")]


@pytest.mark.parametrize(("family", "kind"), CASES)
class TestParity:
    """Both presets agree with the literal reference to 1e-4 in fp32, whatever the family and kind of update."""

    def test_paper_scores_equal_the_literal_loop(self, tmp_path, family, kind):
        """Position-local scores during cached decoding equal a forward and backward per token of whole clients."""
        base = consortia.base_model(family)
        updates = consortia.updates(base, kind=kind)
        model = _federated(tmp_path, base, updates, WEIGHTS)
        generation = consortia.decode(model, "who owns this?", Sampling(max_new_tokens=7))

        response = attribute(model, generation, method="paper")

        ids = list(generation.prompt_token_ids), list(generation.token_ids)
        assert literal_greedy(model.network, ids[0], 7, model.end_token_ids) == ids[1]
        _assert_close(literal_paper(model.network, _whole_clients(base, updates, WEIGHTS), *ids), response.scores)

    @pytest.mark.parametrize("temperature", [0.0, 0.7])
    def test_credit_scores_equal_one_backward_per_token(self, tmp_path, family, kind, temperature):
        """Token-level and response-level `credit` equal the reverse-mode derivative of each token along each D_i."""
        base = consortia.base_model(family)
        updates = consortia.updates(base, kind=kind)
        model = _federated(tmp_path, base, updates, WEIGHTS)
        generation = consortia.decode(
            model, "who owns this?", Sampling(max_new_tokens=6, temperature=temperature, seed=3)
        )

        by_token = attribute(model, generation, token_level=True, effort=TWO)
        whole = attribute(model, generation, effort=TWO)

        updates = {client: _dense(update, base, WEIGHTS[client]) for client, update in updates.items()}
        ids = list(generation.prompt_token_ids), list(generation.token_ids)
        expected = literal_credit(base, updates, *ids, temperature=temperature or 1.0)
        _assert_close(expected.scores, by_token.scores)
        totals = {client: [sum(values)] for client, values in expected.scores.items()}
        _assert_close(totals, {client: (score,) for client, score in whole.response_scores.items()})
        assert whole.gain == pytest.approx(expected.gain, abs=1e-4)
        assert whole.base_shares == pytest.approx(expected.base_shares, abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_an_untied_head_and_a_changed_last_layer_are_scored_too(tmp_path, family):
    """Updates that reach an untied lm_head count at the head, under both presets."""
    base = consortia.base_model(family, tied=False)
    updates = {c: consortia.full_update(base, seed, first_block=-1) for seed, c in enumerate("ab")}
    weights = {"a": 0.5, "b": 0.5}
    model = _federated(tmp_path, base, updates, weights)
    generation = consortia.decode(model, "head", Sampling(max_new_tokens=5))
    ids = list(generation.prompt_token_ids), list(generation.token_ids)

    _assert_close(
        literal_paper(model.network, _whole_clients(base, updates, weights), *ids),
        attribute(model, generation, method="paper").scores,
    )
    halves = {client: _dense(update, base, 0.5) for client, update in updates.items()}
    _assert_close(
        literal_credit(base, halves, *ids).scores, attribute(model, generation, token_level=True, effort=TWO).scores
    )


@pytest.mark.parametrize("by_token", [False, True])
def test_a_consortium_that_learned_nothing_pays_the_commons(tmp_path, by_token):
    """Where every update is zero, as in untrained PEFT adapters, all scores are 0 and the commons has everything."""
    base = consortia.base_model("llama")
    updates = {c: consortia.lora_update(base, seed, first_block=2, size=0.0) for seed, c in enumerate("ab")}
    model = _federated(tmp_path, base, updates, {"a": 0.5, "b": 0.5})

    response = attribute(model, consortia.decode(model, "x", Sampling(max_new_tokens=3)), token_level=by_token)

    assert (response.response_scores, response.shares) == ({"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0})
    assert response.base_share == 1.0
