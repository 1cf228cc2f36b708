"""Inner products of many updates are the same whether their factors are multiplied out or not."""

import pytest
import torch

from attribution.bundle.similarity import gram
from attribution.bundle.updates import LowRank, Update

INPUTS, OUTPUTS = 12, 20


@pytest.mark.parametrize("rank", [1, 3, 11], ids=["few ranks", "some", "many"])
@pytest.mark.parametrize("kinds", ["lora", "mixed"])
def test_products_are_those_of_the_whole_matrices(rank, kinds):
    """Low-rank changes, beside whole differences of the same matrix, and clients that changed nothing of it."""
    generator = torch.Generator().manual_seed(rank)
    updates = []
    for number in range(9):
        A, B = (torch.randn(*shape, generator=generator) for shape in ((rank, INPUTS), (OUTPUTS, rank)))
        whole = {"layer.weight": torch.randn(OUTPUTS, INPUTS, generator=generator)} if kinds == "mixed" else {}
        low_rank = {"layer": LowRank(A, B)} if number % 3 else {}
        updates.append(Update(low_rank, whole if number % 2 else {}))
    vectors = torch.stack(
        [
            (torch.zeros(1) if (change := each.difference("layer.weight")) is None else change.double()).expand(
                OUTPUTS, INPUTS
            )
            for each in updates
        ]
    ).flatten(1)

    torch.testing.assert_close(vectors.double() @ vectors.double().T, gram(updates), rtol=1e-5, atol=1e-4)
