"""What rounds add up to is what an oracle finds that multiplies everything out, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attribution.bundle.similarity import norms
from attribution.bundle.updates import LowRank, Update
from attribution.importers.round_sums import (
    factor_differences,
    low_rank_change,
    low_rank_residual,
    low_rank_sum,
    trained_difference,
)

INPUTS, OUTPUTS = 40, 24
SCALING = 1.7


def factors(seed: int, rank: int = 2, size: float = 1.0) -> LowRank:
    """Random factors of one layer."""
    generator = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(rank, INPUTS, generator=generator), size * torch.randn(OUTPUTS, rank, generator=generator)
    )


def near(before: LowRank, seed: int, size: float = 1e-3) -> LowRank:
    """The same factors after a little training."""
    step = factors(seed, before.A.shape[0])
    return LowRank(before.A + size * step.A, before.B + size * step.B)


def multiplied(state: LowRank) -> Tensor:
    """What the layer adds to the base, in float64."""
    return SCALING * state.B.double() @ state.A.double()


def out(change: LowRank) -> Tensor:
    """A change, multiplied out in float64."""
    return change.B.double() @ change.A.double()


def one_change(sent: LowRank, before: LowRank) -> LowRank:
    """What one client changed."""
    return low_rank_change(factor_differences(sent, before), before, SCALING)


def assert_near(expected: Tensor, actual: Tensor, tolerance: float = 1e-6) -> None:
    """Their distance is rounding beside the expected size."""
    assert float((expected - actual).norm()) <= tolerance * float(expected.norm())


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_a_change_is_what_the_two_states_differ_in(size):
    """However small it is beside the state that it began from: differences of products would have lost it."""
    before = factors(1)
    sent = near(before, 2, size)

    assert_near(multiplied(sent) - multiplied(before), out(one_change(sent, before)))


@pytest.mark.parametrize(("moved", "rank"), [("nothing", 0), ("A", 2), ("B", 2), ("both", 4)])
def test_a_change_has_no_more_ranks_than_what_moved(moved, rank):
    """Who returns the global state changed nothing, exactly; with A frozen the rank is that of the adapter."""
    before, other = factors(1), factors(2)
    sent = LowRank(
        other.A if moved in {"A", "both"} else before.A.clone(), other.B if moved in {"B", "both"} else before.B.clone()
    )

    assert (rank, INPUTS) == one_change(sent, before).A.shape
    assert (OUTPUTS, rank) == one_change(sent, before).B.shape


def test_a_first_round_has_the_rank_of_the_adapter():
    """It begins at B = 0, where a change of A alone changes nothing."""
    before = LowRank(factors(1).A, torch.zeros(OUTPUTS, 2))

    assert (2, INPUTS) == one_change(factors(3), before).A.shape


@settings(deadline=None, max_examples=25)
@given(
    clients=st.integers(1, 5),
    rounds=st.integers(1, 7),
    rank=st.integers(1, 4),
    seed=st.integers(0, 1 << 20),
    takes_part=st.floats(0.3, 1.0),
)
def test_sums_over_rounds_and_the_servers_rest_are_those_of_the_oracle(clients, rounds, rank, seed, takes_part):
    """D_i = Σ_r ρ (C − G), and Σ_i D_i with the residuals of all rounds leads from the first state to the last."""
    generator = torch.Generator().manual_seed(seed)
    state = start = factors(seed, rank)
    terms, oracle = [[] for _ in range(clients)], [torch.zeros(OUTPUTS, INPUTS).double() for _ in range(clients)]
    rest = torch.zeros(OUTPUTS, INPUTS).double()
    for number in range(rounds):
        chosen = [each for each in range(clients) if float(torch.rand((), generator=generator)) < takes_part] or [0]
        weights = torch.rand(len(chosen), generator=generator).double() + 0.1
        weights /= weights.sum()
        sent = {client: near(state, seed + 100 * number + client, 0.1) for client in chosen}
        after = factors(seed + 7 * number + 1, rank)  # whatever the server made of it
        for client, weight in zip(chosen, weights.tolist(), strict=True):
            terms[client].append((weight, one_change(sent[client], state)))
            oracle[client] += weight * (multiplied(sent[client]) - multiplied(state))
        differences = [
            (weight, factor_differences(sent[client], state))
            for client, weight in zip(chosen, weights.tolist(), strict=True)
        ]
        rest += out(low_rank_residual(after, state, differences, SCALING))
        state = after
    for client in range(clients):
        if terms[client]:
            total = low_rank_sum(terms[client])
            assert_near(oracle[client], out(total), 2e-6)
            assert total.A.shape[0] <= min(INPUTS, OUTPUTS)
    torch.testing.assert_close(multiplied(state) - multiplied(start) - sum(oracle), rest, rtol=0, atol=1e-4)


def test_what_fedavg_of_the_factors_leaves_is_the_servers():
    """The mean of A times the mean of B is not the mean of the products: the difference is in the residual."""
    before = factors(1)
    sent = [near(before, seed, 0.3) for seed in (2, 3)]
    after = LowRank((sent[0].A + sent[1].A) / 2, (sent[0].B + sent[1].B) / 2)
    residual = low_rank_residual(after, before, [(0.5, factor_differences(each, before)) for each in sent], SCALING)

    assert_near(multiplied(after) - (multiplied(sent[0]) + multiplied(sent[1])) / 2, out(residual), 1e-5)


def test_an_exact_server_leaves_rounding():
    """With A frozen, the mean of B is the mean of the products: nothing is left but what float32 rounds."""
    before = factors(1)
    sent = [LowRank(before.A, near(before, seed).B) for seed in (2, 3)]
    after = LowRank(before.A, (sent[0].B + sent[1].B) / 2)
    residual = low_rank_residual(after, before, [(0.5, factor_differences(each, before)) for each in sent], SCALING)

    assert float(out(residual).norm()) <= 1e-3 * float(out(one_change(sent[0], before)).norm())


@pytest.mark.parametrize("rank", [11, 12, 30, 90])
def test_many_ranks_are_brought_down_to_the_true_one(rank):
    """Sixteen-fold copies of what has rank five take the room of rank five, from half of the matrix on."""
    few = factors(1, 5)
    mixing = torch.randn(5, rank, generator=torch.Generator().manual_seed(2))
    many = LowRank(torch.linalg.pinv(mixing) @ few.A, few.B @ mixing)
    total = low_rank_sum([(0.5, many)])

    assert (11 if rank == 11 else 5) == total.A.shape[0]
    assert_near(0.5 * out(many), out(total))


def test_ranks_that_cancel_leave_nothing():
    """A client whose rounds undo one another has a sum of rank 0."""
    many = factors(1, 16)

    assert 0 == low_rank_sum([(0.5, many), (-0.5, many)]).A.shape[0]


def test_rounding_to_half_precision_is_nobodys():
    """Of a state saved in bfloat16, only what is another number in bfloat16, too, was trained."""
    before = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    sent = before.clone()
    sent[3] += 0.5

    change = trained_difference(sent.bfloat16().float(), before)
    assert [3] == change.abs().sum(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("rank", [2, 60])
def test_norms_of_few_and_of_many_ranks_are_the_same_norm(rank):
    """Whether the products or the factors are less work."""
    change = factors(1, rank)

    torch.testing.assert_close(out(change).norm(), norms([Update({"layer": change})])[0], rtol=1e-12, atol=0)
