"""Linear layers split by thread compute what they computed before."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attribution.base.thread_split import ROWS, faster_split, split_linear_layers


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 41),
    rows=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    bias=st.booleans(),
)
def test_outputs_are_the_same_whatever_the_shape(inputs, outputs, rows, bias):
    """With any sizes, leading dimensions and bias, the split product equals the plain one to rounding."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    x = torch.randn(*rows, inputs)
    expected = layer(x).detach()

    split_linear_layers(model := nn.Sequential(layer), lambda _: frozenset(ROWS))
    with torch.no_grad():
        actual = model(x)

    assert expected.shape == actual.shape
    assert torch.allclose(expected, actual, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 32])
def test_half_precision_is_rounded_once(dtype, rows):
    """Split or whole, sums are made in more than half precision, and the layer's own dtype comes out."""
    layer = nn.Linear(96, 64)
    x = torch.randn(rows, 96).to(dtype)
    half = nn.Linear(96, 64).to(dtype)
    half.load_state_dict(layer.state_dict())
    expected = nn.functional.linear(x.float(), half.weight.float(), half.bias.float())

    split_linear_layers(model := nn.Sequential(half), lambda _: frozenset(ROWS))
    with torch.no_grad():
        actual = model(x)

    assert dtype == actual.dtype
    torch.testing.assert_close(expected, actual.float(), rtol=3 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 32])
def test_outputs_lie_in_memory_as_a_plain_layer_lays_them(rows, dtype):
    """Transposed ones made attention 5 times as slow in float32, and a whole step 15 times in bfloat16."""
    layer = nn.Linear(96, 64).to(dtype)
    x = torch.randn(rows, 1, 96).to(dtype)
    expected = layer(x).stride()

    split_linear_layers(model := nn.Sequential(layer), lambda _: frozenset(ROWS))
    with torch.no_grad():
        actual = model(x).stride()

    assert expected == actual


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_gradients_are_those_of_a_plain_layer(rows):
    """Where gradients are wanted the layer is the plain one, and it is still an `nn.Linear` under its own name."""
    layer = nn.Linear(6, 4)
    x = torch.randn(rows, 6, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)

    split_linear_layers(model := nn.Sequential(layer), lambda _: frozenset(ROWS))
    (actual,) = torch.autograd.grad(model(x).sum(), x)

    assert isinstance(model.get_submodule("0"), nn.Linear)
    assert torch.equal(expected, actual)


def test_a_shape_is_timed_once_and_may_stay_as_it_is():
    """Layers of one shape share one decision, and where splitting is not faster the layer is left alone."""
    asked = []

    def never(layer: nn.Linear) -> frozenset[int]:
        asked.append((layer.out_features, layer.in_features))
        return frozenset()

    split_linear_layers(model := nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8)), never)

    assert asked == [(8, 4), (4, 8)]
    assert {type(module) for module in model} == {nn.Linear}


def test_the_clock_decides_among_the_numbers_that_are_timed():
    """What this machine measures is a choice of the timed numbers of rows, and nothing on one thread."""
    layer = nn.Linear(64, 256).requires_grad_(requires_grad=False)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert faster_split(layer) <= set(ROWS)
        torch.set_num_threads(1)
        assert faster_split(layer) == frozenset()
    finally:
        torch.set_num_threads(threads)
