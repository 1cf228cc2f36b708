"""Linear layers that take the fastest product compute what they computed before."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

from attribution.base import linear_products
from attribution.base.linear_products import ROWS, fastest_products, packed_product, speed_up, split_product

WAYS = [split_product, packed_product]
ways = pytest.mark.parametrize("way", WAYS, ids=["split", "packed"])


def _sped_up(layer: nn.Linear, way) -> nn.Module:
    """A frozen model of a layer like that one, which takes that product for any number of rows."""
    model = nn.Sequential(nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None))
    model.to(layer.weight.dtype)[0].load_state_dict(layer.state_dict())
    speed_up(model.requires_grad_(requires_grad=False), lambda _: dict.fromkeys(ROWS, way))
    return model


@pytest.fixture
def two_threads():
    """Two threads of torch, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@ways
@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 41),
    rows=st.lists(st.integers(0, 8), min_size=1, max_size=3),
    bias=st.booleans(),
)
def test_outputs_are_the_same_whatever_the_shape(way, inputs, outputs, rows, bias):
    """With any sizes, leading dimensions and bias, a product equals the plain one to rounding."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    x = torch.randn(*rows, inputs)
    expected = layer(x).detach()

    model = _sped_up(layer, way)
    with torch.inference_mode():
        actual = model(x)
    with torch.no_grad():
        without_gradient = model(x)

    assert expected.shape == actual.shape
    assert torch.allclose(expected, actual, atol=1e-5)
    assert torch.allclose(expected, without_gradient, atol=1e-5)


@ways
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 32])
def test_half_precision_is_rounded_once(way, dtype, rows):
    """Sums are made in more than half precision, and the layer's own dtype comes out."""
    half = nn.Linear(96, 64).to(dtype)
    x = torch.randn(rows, 96).to(dtype)
    expected = nn.functional.linear(x.float(), half.weight.float(), half.bias.float())

    with torch.inference_mode():
        actual = _sped_up(half, way)(x)

    assert dtype == actual.dtype
    torch.testing.assert_close(expected, actual.float(), rtol=3 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 32])
def test_outputs_lie_in_memory_as_a_plain_layer_lays_them(way, rows, dtype, two_threads):
    """Transposed ones made attention 5 times as slow in float32, and a whole step 15 times in bfloat16."""
    layer = nn.Linear(96, 64).to(dtype)
    x = torch.randn(rows, 1, 96).to(dtype)

    with torch.inference_mode():
        assert layer(x).stride() == _sped_up(layer, way)(x).stride()


@ways
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_gradients_are_those_of_a_plain_layer(way, rows):
    """Backward by the input, and the layer is still an `nn.Linear` under its own name."""
    layer = nn.Linear(6, 4)
    x = torch.randn(rows, 6, requires_grad=True)
    weighing = torch.randn(rows, 4)
    (expected,) = torch.autograd.grad((layer(x) * weighing).sum(), x)

    model = _sped_up(layer, way)
    (actual,) = torch.autograd.grad((model(x) * weighing).sum(), x)

    assert isinstance(model.get_submodule("0"), nn.Linear)
    assert torch.allclose(expected, actual, atol=1e-6)


@ways
def test_tangents_are_those_of_a_plain_layer(way):
    """Forward, as scores by token are made: with a tangent of the input, without gradients, and with a bias."""
    layer = nn.Linear(6, 4).requires_grad_(requires_grad=False)
    x, direction = torch.randn(5, 6), torch.randn(5, 6)
    told = []
    for model in (layer, _sped_up(layer, way)):
        with torch.no_grad(), forward_ad.dual_level():
            told.append(forward_ad.unpack_dual(model(forward_ad.make_dual(x, direction))))

    (expected, expected_tangent), (actual, tangent) = told
    assert torch.allclose(expected, actual, atol=1e-6)
    assert torch.allclose(expected_tangent, tangent, atol=1e-6)


@ways
def test_a_bias_that_somebody_moves_has_its_gradient(way):
    """A bias put in for a call, as a client's update moves it, is the one that counts."""
    model = _sped_up(nn.Linear(6, 4), way)
    x, bias = torch.randn(5, 6), torch.randn(4, requires_grad=True)
    output = functional_call(model, {"0.bias": bias}, (x,))
    (gradient,) = torch.autograd.grad(output.sum(), bias)

    assert torch.allclose(nn.functional.linear(x, model[0].weight, bias), output, atol=1e-6)
    assert torch.equal(torch.full((4,), 5.0), gradient)


@ways
def test_weights_that_were_exchanged_or_changed_are_the_ones_that_count(way):
    """A copy of weights that are no longer the layer's is not used: neither of a call's own, nor after a change."""
    model, x = _sped_up(nn.Linear(6, 4, bias=False), way), torch.randn(5, 6)
    others = torch.randn(4, 6)
    with torch.inference_mode():
        assert torch.allclose(x @ others.T, functional_call(model, {"0.weight": others}, (x,)), atol=1e-6)
    with torch.no_grad():
        model[0].weight.mul_(2)
    with torch.inference_mode():
        assert torch.allclose(x @ model[0].weight.T, model(x), atol=1e-6)


@ways
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_model_that_is_cast_computes_in_its_new_numbers(way, dtype):
    """As an experiment does to see what rounding does; and other data that is put into a weight is its data."""
    model, x = _sped_up(nn.Linear(6, 4), way).to(dtype), torch.randn(5, 6).to(dtype)
    expected = nn.functional.linear(x, model[0].weight, model[0].bias)
    with torch.inference_mode():
        actual = model(x)
    assert dtype == actual.dtype
    torch.testing.assert_close(expected, actual, rtol=3 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    model[0].weight.data = torch.zeros(4, 6, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(model[0].bias.expand(5, 4), model(x))


@ways
def test_a_copied_model_computes_with_its_own_weights(way):
    """A deep copy whose weights are then changed, in whatever way, is not the model that it was copied from."""
    model, x = _sped_up(nn.Linear(6, 4), way), torch.randn(5, 6)
    other = deepcopy(model)
    other[0].weight.data *= 2
    with torch.inference_mode():
        assert torch.allclose(nn.functional.linear(x, 2 * model[0].weight, model[0].bias), other(x), atol=1e-6)


@ways
def test_weights_that_train_have_their_gradient(way):
    """A layer that is not frozen after all is the plain one where gradients are asked for."""
    layer = nn.Linear(6, 4)
    model, x = _sped_up(layer, way).requires_grad_(), torch.randn(5, 6)
    (expected,) = torch.autograd.grad(layer(x).sum(), layer.weight)
    (actual,) = torch.autograd.grad(model(x).sum(), model[0].weight)

    assert torch.allclose(expected, actual, atol=1e-6)


def test_a_shape_is_asked_for_once_and_may_stay_as_it_is():
    """Layers of one shape share one decision, and where nothing is faster the layer is left alone."""
    shapes = []

    def never(layers):
        shapes.append((len(layers), layers[0].out_features, layers[0].in_features))
        return {}

    speed_up(model := nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8)), never)

    assert shapes == [(2, 8, 4), (1, 4, 8)]
    assert {type(module) for module in model} == {nn.Linear}


def test_the_clock_decides_among_the_numbers_that_are_timed(two_threads):
    """What this machine measures is a choice of the timed numbers of rows; what was packed to be timed is let go."""
    layers = [nn.Linear(64, 256).requires_grad_(requires_grad=False) for _ in range(3)]
    chosen = fastest_products(layers, WAYS)
    torch.set_num_threads(1)
    alone = fastest_products(layers, WAYS)

    assert chosen.keys() | alone.keys() <= set(ROWS)
    assert set(chosen.values()) | set(alone.values()) <= set(WAYS)
    assert split_product not in alone.values()
    assert [None] * 3 == [layer.packed for layer in layers]


def test_a_second_model_of_the_same_shapes_is_not_timed_again(monkeypatch):
    """A round that is published has the shapes of the one before."""
    timed = []
    monkeypatch.setattr(linear_products, "_TIMED", {})
    monkeypatch.setattr(linear_products, "fastest_products", lambda layers, ways: timed.append(ways) or {})
    for _ in range(2):
        speed_up(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)))

    assert [(split_product, packed_product)] * 2 == timed


def test_a_large_model_keeps_its_weights_once(monkeypatch):
    """Copies are made of models that are small beside a machine; a weight that two layers share counts once."""
    timed = []
    monkeypatch.setattr(linear_products, "_TIMED", {})
    monkeypatch.setattr(linear_products, "fastest_products", lambda layers, ways: timed.append(ways) or {})
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8))
    model[2].weight = model[0].weight
    for most in (2 * 4 * 8 * 4, 2 * 4 * 8 * 4 - 1):
        monkeypatch.setattr(linear_products, "PACKED_BYTES", most)
        speed_up(model)

    assert [(split_product, packed_product)] * 2 + [(split_product,)] * 2 == timed
