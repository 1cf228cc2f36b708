"""Attribution on real SmolLM2-135M weights against the literal reference."""

import copy

import pytest
import torch

from attribution.attribute import attribute
from attribution.base.references import load_model, resolve_base
from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from attribution.records import Sampling
from attribution.scoring.credit_preset import Effort
from tests.attribution.scoring.literal_reference import literal_credit, literal_paper

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(real_bundle) -> FederatedModel:
    return FederatedModel.load(real_bundle)


@pytest.fixture(scope="module")
def generation(model):
    batch = Batch(model)
    prompt = model.encode_chat([{"role": "user", "content": "What is the colour of the harbour bell?"}])
    batch.join("r", prompt, Sampling(max_new_tokens=8))
    while len(batch):
        batch.step()
    return batch.leave("r")


def close(expected: dict[str, list[float]], actual: dict[str, tuple[float, ...]]) -> bool:
    """Whether all scores agree to 1e-4 of the largest."""
    reference = torch.tensor([expected[client] for client in actual])
    found = torch.tensor(list(actual.values()))
    return float((reference - found).abs().max() / reference.abs().max()) <= 1e-4


def test_paper_equals_the_literal_loop(model, generation):
    """Position-local scores of SmolLM2-135M equal a forward and backward per token with whole client models."""
    base = load_model(resolve_base(model.manifest.base.reference))
    updates = {client.id: model.bundle.updates[client.id] for client in model.manifest.clients}
    weights = {client.id: client.weight for client in model.manifest.clients}
    last = model.bundle.last_round
    clients = {}
    for client in updates:  # W_i = global − Σ_k ρ_k Δ_k + Δ_i, the round before and the client's own change
        clients[client] = copy.deepcopy(model.network)
        for name, value in clients[client].named_parameters():
            for other, update in last.items():
                change = update.difference(name)
                if change is not None:
                    value.data += ((other == client) - weights[other]) * change
    ids = list(generation.prompt_token_ids), list(generation.token_ids)

    expected = literal_paper(model.network, clients, *ids)

    assert base.config.model_type == "llama"
    assert close(expected, attribute(model, generation, method="paper").scores)


def test_credit_equals_one_backward_per_token(model, generation):
    """`credit` scores of SmolLM2-135M, by response and by token, equal the literal derivative along each D_i."""
    base = load_model(resolve_base(model.manifest.base.reference))
    updates = {
        client: {name: update.difference(name) for name in update.parameters()}
        for client, update in model.bundle.updates.items()
    }
    ids = list(generation.prompt_token_ids), list(generation.token_ids)
    expected = literal_credit(base, updates, *ids)

    by_token = attribute(model, generation, token_level=True, effort=Effort(nodes=2))
    whole = attribute(model, generation, effort=Effort(nodes=2))

    assert close(expected.scores, by_token.scores)
    totals = {client: [sum(scores)] for client, scores in expected.scores.items()}
    assert close(totals, {client: (score,) for client, score in whole.response_scores.items()})
    assert whole.gain == pytest.approx(expected.gain, abs=1e-3)


def test_the_owner_earns_and_the_free_rider_does_not(model, generation):
    """The client that taught the fact is on top; the one that changed nothing has a score and share of exactly 0."""
    response = attribute(model, generation)

    assert max(response.shares, key=response.shares.get) == "ada"
    assert (response.response_scores["rider"], response.shares["rider"]) == (0.0, 0.0)
