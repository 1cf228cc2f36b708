"""From recorded rounds to credit: what clients taught is theirs, what the server did is the base's."""

from pathlib import Path

import pytest
import torch

from attribution.attribute import attribute
from attribution.base.references import load_model
from attribution.importers.recorded_rounds import import_rounds
from attribution.model import FederatedModel
from attribution.records import Sampling
from attribution.scoring.credit_preset import Effort
from tests.attribution import consortia
from tests.attribution.importers.recordings import (
    ADAPTER,
    Recording,
    adapter_start,
    idle,
    merged,
    parts,
    slowed,
)

EFFORT = Effort(nodes=15)
MEMBERS = ("early", "steady", "rider", "never")
ROUNDS = ({"early": 3, "steady": 1}, {"early": 1, "steady": 2, "rider": 1}, {"steady": 1, "rider": 1})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model on disk."""
    folder = tmp_path_factory.mktemp("base")
    consortia.save_base(consortia.base_model("llama", tied=False), folder)
    return folder


def recorded(base: Path, folder: Path, **settings) -> Recording:
    """Three rounds; `early` is not in the last one."""
    recording = Recording(folder, MEMBERS, adapter_start(load_model(base)), adapter=ADAPTER, **settings)
    return recording.run(*ROUNDS)


def log_p(model: torch.nn.Module, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> float:
    """The oracle: log-probability of a response, by one plain pass."""
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1].double()
    return float(logits.log_softmax(-1)[range(len(tokens)), list(tokens)].sum())


@pytest.mark.parametrize("server", [slowed, None], ids=["slowed", "fedavg"])
def test_scores_and_base_are_complete(base, tmp_path, server):
    """Σ scores = log p_global − log p of global − Σ D_i, which base and residual make; and the shares sum to 1."""
    recording = recorded(base, tmp_path / "rounds", **({} if server is None else {"server": server}))
    bundle = import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle")
    model = FederatedModel.load(bundle.path)
    generation = consortia.decode(model, "who?", Sampling(max_new_tokens=8))
    response = attribute(model, generation, effort=EFFORT)

    without = load_model(base)
    clients, end = parts(recording), merged(recording.states[-1])
    with torch.no_grad():
        for name, value in end.items():
            rest = value - sum(clients[client].get(name, 0) for client in MEMBERS)
            without.get_parameter(name).add_(rest.float())
    ids = generation.prompt_token_ids, generation.token_ids
    gain = log_p(load_model(bundle.global_path), *ids) - log_p(without, *ids)

    assert response.gain == pytest.approx(gain, abs=1e-3)
    assert sum(response.response_scores.values()) == pytest.approx(gain, abs=1e-2 * max(1, abs(gain)))
    assert sum(response.shares.values()) + response.base_share == pytest.approx(1)
    assert {"rider": 0, "never": 0}.items() <= response.response_scores.items()


def test_who_is_absent_from_the_last_round_still_earns(base, tmp_path):
    """The last round adds to what earlier ones taught; the score of who left is not 0."""
    recording = recorded(base, tmp_path / "rounds")
    bundle = import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle")
    model = FederatedModel.load(bundle.path)
    assert "early" not in bundle.last_round

    scores = [
        attribute(model, consortia.decode(model, prompt, Sampling(max_new_tokens=8)), effort=EFFORT).response_scores
        for prompt in ("who?", "what?", "where?")
    ]
    assert all(abs(each["early"]) > 1e-4 for each in scores)


def test_what_the_server_alone_did_is_the_bases(base, tmp_path):
    """A server that goes its own way, clients that hand back its model: nobody earns, the base has it all."""

    def wander(before, _sent):
        return {name: value + 0.1 for name, value in before.items()}

    start = adapter_start(load_model(base))
    recording = Recording(tmp_path / "rounds", ("rider",), start, server=wander, adapter=ADAPTER)
    recording.run({"rider": 1}, {"rider": 1})
    bundle = import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle")
    model = FederatedModel.load(bundle.path)
    response = attribute(model, consortia.decode(model, "who?", Sampling(max_new_tokens=8)))

    assert bundle.manifest.global_.residual_norm > 0.1
    assert ({"rider": 0}, 1) == (response.response_scores, response.base_share)


def test_what_the_server_threw_away_is_credited_and_undone(base, tmp_path):
    """Clients who sent what the server did not take: their parts stand against a residual that is their opposite."""
    recording = recorded(base, tmp_path / "rounds", server=idle)
    bundle = import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle")
    total = {}
    for update in bundle.updates.values():
        for name in update.parameters():
            total[name] = total.get(name, 0) + update.difference(name).double()

    size = sum(float(value.square().sum()) for value in total.values()) ** 0.5
    assert bundle.manifest.global_.residual_norm == pytest.approx(size, rel=1e-4)
