"""Scores at any layer and the naive replay, against the literal reference written apart."""

import pytest
import torch

from attribution.attribute import attribute
from attribution.evaluation.experiments.layer_scores import layer_scores
from attribution.evaluation.experiments.naive_replay import literal_credit, literal_paper
from attribution.model import FederatedModel
from attribution.records import Sampling
from tests.attribution import consortia
from tests.attribution.scoring import literal_reference as reference

WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


@pytest.fixture(scope="module", params=[("llama", "lora"), ("qwen2", "full"), ("gemma3", "lora")], ids=str)
def case(request, tmp_path_factory):
    """A consortium of each family, and one of its responses."""
    family, kind = request.param
    base = consortia.base_model(family)
    updates = consortia.updates(base, kind=kind)
    model = FederatedModel.load(consortia.write_consortium(tmp_path_factory.mktemp(family), base, updates, WEIGHTS))
    return model, consortia.decode(model, "who owns this?", Sampling(4))


def test_the_paper_s_layers_sum_to_the_preset(case):
    """o_proj and MLP of the last block and the head, summed, are the preset `paper`."""
    model, generation = case
    by_layer = layer_scores(model, generation)
    last = len(model.layers.blocks) - 1
    layers = [f"model.layers.{last}.self_attn.o_proj", f"model.layers.{last}.mlp", "lm_head"]
    summed = sum(by_layer[layer] for layer in layers)
    expected = torch.tensor(list(attribute(model, generation, method="paper").scores.values()), dtype=torch.float64)

    torch.testing.assert_close(summed, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_without_gradients_a_score_is_the_sum_of_the_outputs(case):
    """Gradients off, a client's score at a layer is its output at the emitting position, summed."""
    model, generation = case
    client = next(iter(model.bundle.last_round))
    found = layer_scores(model, generation, gradients=False)["model.layers.2.mlp"][0]
    network, change = model.network, model.bundle.last_round[client]
    seen: dict[str, torch.Tensor] = {}
    hook = network.model.layers[2].mlp.register_forward_hook(lambda _, x, __: seen.update(x=x[0]))
    ids = torch.tensor([[*generation.prompt_token_ids, *generation.token_ids[:-1]]])
    with torch.no_grad():
        network(ids, use_cache=False)
        hook.remove()
        mlp = network.model.layers[2].mlp
        weights = {
            name: part.weight - sum(
                WEIGHTS[each] * update.difference(f"model.layers.2.mlp.{name}.weight")
                for each, update in model.bundle.last_round.items()
            ) + change.difference(f"model.layers.2.mlp.{name}.weight")
            for name, part in mlp.named_children() if name.endswith("proj")
        }  # fmt: skip
        inner = mlp.act_fn(seen["x"] @ weights["gate_proj"].T) * (seen["x"] @ weights["up_proj"].T)
        outputs = (inner @ weights["down_proj"].T)[0, len(generation.prompt_token_ids) - 1 :]

    torch.testing.assert_close(found, outputs.double().sum(1), rtol=1e-3, atol=1e-3)


def test_the_naive_replay_is_the_reference(case):
    """The replay that `protoken evaluate` measures parity against equals the reference of the tests."""
    model, generation = case
    base = consortia.base_model(model.network.config.model_type.removesuffix("_text"))
    ids = list(generation.prompt_token_ids), list(generation.token_ids)
    names = dict(base.named_parameters())
    dense = {
        client: {name: update.difference(name) for name in update.parameters() if name in names}
        for client, update in model.bundle.updates.items()
    }
    expected = reference.literal_credit(base, dense, *ids, nodes=2).scores
    found = literal_credit(model.bundle, generation, 2)
    scale = max(abs(sum(scores)) for scores in expected.values())
    for client, scores in expected.items():
        assert found[client] == pytest.approx(sum(scores), abs=1e-3 * scale)

    fast = attribute(model, generation, method="paper").scores
    for client, scores in literal_paper(model.bundle, generation).items():
        assert list(fast[client]) == pytest.approx(scores, rel=1e-3, abs=1e-3)
