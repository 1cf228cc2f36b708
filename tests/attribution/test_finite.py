"""Whether a tensor holds numbers alone is told by its extremes, as a look at each number would."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribution.files.torch_tensors import is_finite

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NUMBERS = st.floats(width=64) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e39, -7e4, 0.0])


@given(st.lists(NUMBERS, max_size=8), st.sampled_from(FLOATS), st.sampled_from([None, *FLOATS]))
def test_it_is_what_a_look_at_each_says(numbers, stored, dtype):
    """Of any numbers, as they are stored and as another dtype would hold them."""
    tensor = torch.tensor(numbers, dtype=torch.float64).to(stored)

    assert bool(torch.isfinite(tensor.to(dtype)).all()) == is_finite(tensor, dtype)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_any_shape_will_do(shape):
    """A single number, none at all, and a matrix."""
    assert is_finite(torch.zeros(shape))
