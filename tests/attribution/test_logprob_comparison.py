"""Log-probabilities that somebody else told, held against the bundle's: same weights, other numbers, other weights."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from attribution.decoding.decode import Batch
from attribution.logprob_comparison import Comparison, compare, deviation_of
from attribution.model import FederatedModel
from attribution.records import Generation, Sampling
from attribution.scoring.interruptible import run
from tests.attribution.consortia import federated

SAMPLING = Sampling(100, temperature=1.0)


@pytest.fixture(scope="module", params=["lora", "full"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FederatedModel:
    """A consortium of three clients, whose updates are of low rank or whole; it never ends by itself."""
    torch.set_num_threads(1)
    model = federated(tmp_path_factory.mktemp("consortium"), kind=request.param)
    model.end_token_ids = set()
    return model


def without(model: FederatedModel, client: str) -> FederatedModel:
    """The same model, served without one client's update."""
    other = deepcopy(model)
    update = model.bundle.updates[client]
    with torch.no_grad():
        for name, factors in update.low_rank.items():
            other.network.get_submodule(name).weight -= factors.B @ factors.A
        for name, difference in update.dense.items():
            other.network.get_parameter(name).sub_(difference)
    return other


def texts_of(model: FederatedModel, number: int = 16) -> list[Generation]:
    """What it says freely."""
    batch = Batch(model)
    for n in range(number):
        batch.join(str(n), model.encode_text(f"{n} tell me"), SAMPLING)
    while len(batch):
        batch.step()
    return [batch.leave(str(n)) for n in range(number)]


def comparison_of(model: FederatedModel, said: list[Generation], noise: float = 0.0) -> Comparison:
    """What the bundle says of them, with noise added to what was told."""
    numbers = torch.Generator().manual_seed(0)
    deviations = []
    for each in said:
        told = torch.tensor(each.logprobs) + noise * torch.randn(len(each.logprobs), generator=numbers)
        deviations.append(run(deviation_of(model, each.prompt_token_ids, each.token_ids, told.tolist())))
    return compare(model.client_ids, deviations)


def test_the_same_weights_are_found_to_be_the_same(model: FederatedModel) -> None:
    """Up to rounding; and with the noise of half precision no update is missed."""
    said = texts_of(model)
    exact, noisy = comparison_of(model, said), comparison_of(model, said, 0.05)

    assert (1600, (), ()) == (exact.tokens, exact.other, noisy.other)
    assert () == exact.unsure == noisy.unsure
    assert model.client_ids == comparison_of(model, said[:1], 5.0).unsure
    assert exact.difference_nats < 1e-3 < 0.02 < noisy.difference_nats < 0.06


def test_weights_that_lack_one_clients_update_are_found(model: FederatedModel) -> None:
    """Whichever it is, and named, also behind the noise of half precision."""
    for client in model.client_ids:
        said = texts_of(without(model, client))

        assert [(client,), (client,)] == [comparison_of(model, said, noise).other for noise in (0.0, 0.05)]


def test_a_client_that_changed_nothing_is_missed_by_nobody(tmp_path: Path) -> None:
    """Its update is not there to be missed, whatever was told."""
    deviation = run(deviation_of(model := federated(tmp_path), model.encode_text("tell me"), [40, 41], [-1.0, -2.0]))
    nothing = torch.zeros_like(deviation.without)

    assert () == compare(model.client_ids, [type(deviation)(deviation.told, nothing)]).other
