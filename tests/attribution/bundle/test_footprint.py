"""How much a bundle holds, without reading it."""

from pathlib import Path

import pytest

from attribution.bundle.footprint import BundleSizes, sizes_of
from attribution.errors import BundleError
from tests.attribution.consortia import base_model, updates, write_consortium


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["lora", "full", "everything"])
def test_sizes_are_those_of_the_tensors(tmp_path: Path, kind: str, tied: bool):
    """Served weights, and whole differences in bytes; halves of low-rank changes are none."""
    model = base_model("llama", tied=tied)
    made = updates(model, kind=kind)
    weights = sum(value.numel() for value in model.parameters())
    dense = sum(4 * value.numel() for update in made.values() for value in update.dense.values())

    assert BundleSizes(weights, 3, dense) == sizes_of(write_consortium(tmp_path, model, made))


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path):
    """As whoever opens it does."""
    with pytest.raises(BundleError, match="absent"):
        sizes_of(tmp_path / "absent")
