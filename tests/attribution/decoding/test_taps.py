"""What is captured is what was asked for, in memory of its own, and changes no token."""

import pytest
import torch

from attribution.decoding.decode import Batch
from attribution.decoding.taps import Captures
from attribution.model import FederatedModel
from attribution.records import Sampling
from tests.attribution import consortia

PAPER = {"block_input", "o_proj_input", "o_proj_output"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> FederatedModel:
    """A consortium over a random Llama."""
    return consortia.federated(tmp_path_factory.mktemp("llama"))


def _running(model: FederatedModel, rows: int, steps: int, captures: Captures = Captures.ALL) -> Batch:
    batch = Batch(model, 20, captures)
    for row in range(rows):
        batch.join(str(row), model.encode_text("a prompt of thirty letters, or" + "!" * row), Sampling(steps + 9))
    while min(len(batch._rows[str(row)].token_ids) for row in range(rows)) < steps:
        batch.step()
    return batch


@pytest.mark.parametrize(
    ("captures", "names"),
    [
        (Captures.NONE, set()),
        (Captures.CREDIT, {"tail_input"}),
        (Captures.PAPER, PAPER),
        (Captures.ALL, {"tail_input"} | PAPER),
    ],
)
def test_only_what_was_asked_for_is_captured(llama, captures, names):
    """The tensors of a preset are there where it is to be scored; tokens are the same."""
    found = _running(llama, 2, 6, captures).leave("1")
    whole = _running(llama, 2, 6).leave("1")

    assert whole.token_ids == found.token_ids
    for name in PAPER | {"tail_input"}:
        tensor = getattr(found, name)
        assert (name in names) == (tensor is not None and len(tensor) > 0)
        if name in names:
            torch.testing.assert_close(getattr(whole, name), tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 16])
def test_captures_own_their_memory(llama, rows):
    """They hold at most 1.05 times the bytes that are needed, at any number of rows: none is a view of a batch's."""
    batch = _running(llama, rows, 12)
    tensors = [tensor for row in batch._rows.values() for parts in row.captured.values() for tensor in parts]
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    width, itemsize = llama.network.config.hidden_size, 4
    needed = sum(
        itemsize * width * (len(row.prompt_ids) + len(row.token_ids) - 1 + len(PAPER) * len(row.token_ids))
        for row in batch._rows.values()
    )

    assert needed <= sum(held.values()) <= 1.05 * needed
