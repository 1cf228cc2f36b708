"""Linear layers split by thread compute what they computed before."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attribution.thread_split import split_linear_layers


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

    split_linear_layers(model := nn.Sequential(layer))
    with torch.no_grad():
        actual = model(x)

    assert expected.shape == actual.shape
    assert torch.allclose(expected, actual, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_gradients_are_those_of_a_plain_layer(rows):
    """Where gradients are wanted the layer is the plain one, and it is still an `nn.Linear` under its own name."""
    layer = nn.Linear(6, 4)
    x = torch.randn(rows, 6, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)

    split_linear_layers(model := nn.Sequential(layer))
    (actual,) = torch.autograd.grad(model(x).sum(), x)

    assert isinstance(model.get_submodule("0"), nn.Linear)
    assert torch.equal(expected, actual)
