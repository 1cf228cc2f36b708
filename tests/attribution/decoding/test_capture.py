"""Whatever runs on the network, and however it fails, it is afterwards as it was: no hook, flag or mode differs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attribution.attribute import attribute
from attribution.decoding.capture import Tap, capture
from attribution.decoding.decode import Batch
from attribution.errors import ScoreError
from attribution.model import FederatedModel
from attribution.records import Sampling
from tests.attribution import consortia

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
PRESETS = {
    "paper": {"method": "paper"},
    "credit": {"method": "credit"},
    "credit by token": {"method": "credit", "token_level": True},
}
SAMPLING = Sampling(max_new_tokens=4)


class BlownError(Exception):
    """What a fuse raises once it is blown."""


class Fuse(nn.Module):
    """An activation of the network that raises once it is blown."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.blown = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.blown:
            raise BlownError
        return self.activation(x)


@pytest.fixture(scope="module", params=["lora", "full", "everything"])
def bundle(request, tmp_path_factory) -> Path:
    """A consortium on disk, of each kind of update in turn."""
    return consortia.federated(tmp_path_factory.mktemp(request.param), kind=request.param).bundle.path


@pytest.fixture
def model(bundle) -> FederatedModel:
    """The consortium, freshly loaded, with a fuse in the last block of its network."""
    model = FederatedModel.load(bundle)
    mlp = model.network.model.layers[-1].mlp
    mlp.act_fn = Fuse(mlp.act_fn).eval()
    return model


def _blow(model: FederatedModel) -> None:
    model.network.model.layers[-1].mlp.act_fn.blown = True


def _hooks(network: nn.Module) -> dict[tuple[str, str], int]:
    """How many hooks of each kind there are, wherever there is one."""
    found = {(name, kind): len(getattr(module, kind)) for name, module in network.named_modules() for kind in HOOKS}
    return {place: count for place, count in found.items() if count}


def _state(network: nn.Module) -> dict[str, object]:
    """All that a careless capture or attribution would leave changed."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    return {
        "training": {name: module.training for name, module in network.named_modules()},
        "identity": {name: id(value) for name, value in parameters.items()},
        "requires_grad": {name: value.requires_grad for name, value in parameters.items()},
        "grad": {name: value.grad for name, value in parameters.items()},
        "version": {name: value._version for name, value in parameters.items()},
        "attention": network.config._attn_implementation,
        "modules": [name for name, _ in network.named_modules()],
    }


def _poison(update) -> None:
    """Put a NaN into an update that is in memory, at a layer that both presets score."""
    layer = "model.layers.3.mlp.down_proj"
    tensor = update.low_rank[layer].B if update.low_rank else update.dense[f"{layer}.weight"]
    tensor[0, 0] = torch.nan


class TestCapturing:
    """`capture` remembers what its taps saw within the `with`, and leaves no hook behind."""

    def _taps(self, model):
        return {
            "input": Tap(model.layers.last_block, "input"),
            "output": Tap(model.layers.o_proj, "output"),
        }

    def test_taps_remember_inputs_and_outputs(self, model):
        """Within, the last pass is remembered, detached; after it, a pass leaves nothing and no hook remains."""
        before = _state(model.network)
        with capture(self._taps(model)) as seen:
            assert {"model.layers.3", "model.layers.3.self_attn.o_proj"} == {name for name, _ in _hooks(model.network)}
            with torch.enable_grad():
                model.network(torch.tensor([[5, 6, 7]]))
            model.network(torch.tensor([[8, 9]]))
        remembered = dict(seen)
        model.network(torch.tensor([[5]]))

        assert {"input": (1, 2, 32), "output": (1, 2, 32)} == {name: tuple(t.shape) for name, t in remembered.items()}
        assert not any(tensor.requires_grad for tensor in seen.values())
        assert all(remembered[name] is tensor for name, tensor in seen.items())
        assert ({}, before) == (_hooks(model.network), _state(model.network))

    def test_no_hook_remains_after_a_failure(self, model):
        """A module that raises within the `with` takes the hooks with it."""
        before = _state(model.network)
        _blow(model)
        with pytest.raises(BlownError), capture(self._taps(model)):
            model.network(torch.tensor([[5, 6, 7]]))

        assert ({}, before) == (_hooks(model.network), _state(model.network))

    def test_no_hook_remains_of_taps_that_cannot_all_be_set(self, model):
        """Where the second tap names no module, the first one's hook is removed as well."""
        taps = {"good": Tap(model.layers.o_proj, "output"), "bad": Tap(None, "output")}
        with pytest.raises(AttributeError), capture(taps):
            raise AssertionError("must not be entered")

        assert {} == _hooks(model.network)


class TestBatch:
    """Decoding leaves the network as it was."""

    def test_decoding_leaves_no_trace(self, model):
        """Joining, stepping and leaving change nothing of the network."""
        before = _state(model.network)
        batch = Batch(model)
        batch.join("r", model.encode_text("hello"), SAMPLING)
        assert ({}, before) == (_hooks(model.network), _state(model.network))
        batch.step()
        batch.step()
        assert ({}, before) == (_hooks(model.network), _state(model.network))
        batch.leave("r")

        assert ({}, before) == (_hooks(model.network), _state(model.network))

    def test_a_failure_while_joining_leaves_no_trace(self, model):
        """A module that raises in the prompt's pass leaves the network as it was, and nobody is in the batch."""
        before = _state(model.network)
        batch = Batch(model)
        _blow(model)
        batch.join("r", model.encode_text("hello"), SAMPLING)
        assert ([], 0) == (batch.step(), len(batch))
        with pytest.raises(BlownError):
            batch.leave("r")

        assert ({}, before) == (_hooks(model.network), _state(model.network))

    def test_a_failure_in_a_step_leaves_no_trace(self, model):
        """A module that raises in a step leaves the network as it was."""
        before = _state(model.network)
        batch = Batch(model)
        batch.join("r", model.encode_text("hello"), SAMPLING)
        batch.step()
        _blow(model)
        assert ([], 0) == (batch.step(), len(batch))
        with pytest.raises(BlownError):
            batch.leave("r")

        assert ({}, before) == (_hooks(model.network), _state(model.network))


@pytest.mark.parametrize("preset", PRESETS)
class TestAttribute:
    """Attribution leaves the network as it was, and returns nothing that is not a number."""

    def test_attribution_leaves_no_trace(self, model, preset):
        """Scoring, twice, changes nothing of the network, and the second time gives the same."""
        generation = consortia.decode(model, "hello", SAMPLING)
        before = _state(model.network)
        first, second = (attribute(model, generation, **PRESETS[preset]) for _ in range(2))

        assert ({}, before) == (_hooks(model.network), _state(model.network))
        assert first == second

    def test_a_failure_leaves_no_trace(self, model, preset):
        """A module that raises in the middle leaves the network as it was, the attention's implementation included."""
        generation = consortia.decode(model, "hello", SAMPLING)
        before = _state(model.network)
        _blow(model)
        with pytest.raises(BlownError):
            attribute(model, generation, **PRESETS[preset])

        assert ({}, before) == (_hooks(model.network), _state(model.network))

    def test_a_score_that_is_no_number_is_refused(self, model, preset):
        """NaN in an update in memory is a ScoreError, nothing is returned, and the network is as it was."""
        generation = consortia.decode(model, "hello", SAMPLING)
        before = _state(model.network)
        _poison((model.bundle.last_round if preset == "paper" else model.bundle.updates)["b"])
        with pytest.raises(ScoreError, match="NaN or infinite"):
            attribute(model, generation, **PRESETS[preset])

        assert ({}, before) == (_hooks(model.network), _state(model.network))

    def test_a_generation_that_is_no_number_is_refused(self, model, preset):
        """NaN in what decoding captured is a ScoreError."""
        generation = consortia.decode(model, "hello", SAMPLING)
        captured = "o_proj_output" if preset == "paper" else "tail_input"
        if getattr(generation, captured) is None:  # credit needs nothing of a decoder where the embedding is changed
            assert model.first_block is None
            return
        spoilt = replace(generation, **{captured: getattr(generation, captured) * torch.nan})
        with pytest.raises(ScoreError):
            attribute(model, spoilt, **PRESETS[preset])

    def test_what_the_decoder_says_of_its_choices_is_not_scored(self, model, preset):
        """Log-probabilities of a decoder, which may serve in another dtype, change no score."""
        generation = consortia.decode(model, "hello", SAMPLING)
        noisy = replace(generation, logprobs=tuple(each + 0.03 for each in generation.logprobs))
        assert attribute(model, generation, **PRESETS[preset]) == attribute(model, noisy, **PRESETS[preset])


def test_the_state_shows_what_is_left_behind(tmp_path):
    """These tests can fail: a hook, a flag, a mode and another attention left behind are each noticed."""
    network = consortia.federated(tmp_path).network
    before = _state(network)
    changes = {
        "requires_grad": lambda: network.lm_head.weight.requires_grad_(requires_grad=True),
        "training": network.train,
        "attention": lambda: setattr(network.config, "_attn_implementation", "eager"),
        "version": lambda: network.model.norm.weight.add_(0),
    }
    network.model.norm.weight.requires_grad_(requires_grad=False)
    for changed, change in changes.items():
        change()
        assert before[changed] != _state(network)[changed]
    for register in ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
        handle = getattr(network.model.norm, f"register_{register}")(lambda *_: None)
        assert 1 == len(_hooks(network))
        handle.remove()

    assert {} == _hooks(network)
