"""A network in half precision decodes as the same network does in float32, but for the rounding of its numbers."""

import pytest
import torch

from attribution.decoding.decode import Batch
from attribution.errors import ModelError
from attribution.model import FederatedModel
from attribution.records import Sampling
from attribution.teacher_forcing import forced_generation
from tests.attribution import consortia

NATS = {"float32": 1e-4, "bfloat16": 0.15, "float16": 0.02}
"""How far a log-probability of a random model may be off: its logits are large, and rounded."""


@pytest.fixture(scope="module", params=consortia.FAMILIES)
def exact(request, tmp_path_factory) -> FederatedModel:
    """A consortium of each family in turn, in float32."""
    return consortia.federated(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("dtype", NATS)
def test_log_probabilities_are_those_of_float32_but_for_rounding(exact, dtype):
    """Rows of unlike lengths, greedy and sampled: each token has about the log-probability that float32 gives it."""
    model = FederatedModel.load(exact.bundle.path, dtype=dtype)
    batch = Batch(model, 7)
    samplings = [Sampling(12), Sampling(8, temperature=1.0, seed=3), Sampling(10, temperature=1.0, top_p=0.9, seed=4)]
    for row, sampling in enumerate(samplings):
        batch.join(str(row), model.encode_text("who owns " + "this? " * row), sampling)
    while len(batch):
        batch.step()

    assert dtype == model.dtype
    for row, sampling in enumerate(samplings):
        found = batch.leave(str(row))
        expected = forced_generation(exact, found.prompt_token_ids, found.token_ids, sampling.temperature)
        assert sampling.max_new_tokens == len(found.token_ids) or found.finish_reason == "stop"
        assert pytest.approx(expected.logprobs, abs=NATS[dtype]) == found.logprobs
        assert getattr(torch, dtype) == found.block_input.dtype


def test_float32_is_what_a_bundle_is_loaded_in(exact):
    """Whatever its files hold, and whoever says nothing."""
    assert "float32" == FederatedModel.load(exact.bundle.path).dtype


def test_another_dtype_is_refused_by_name(exact):
    """The message names what there is."""
    with pytest.raises(ModelError, match="'int8'; it must be one of float32, bfloat16, float16"):
        FederatedModel.load(exact.bundle.path, dtype="int8")  # type: ignore[arg-type]
