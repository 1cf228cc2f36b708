"""What a member who trains for credit hands in: exactly what the experiment's note says of each attack."""

import pytest
import torch

from attribution.bundle.similarity import cosines, norms
from attribution.bundle.updates import LowRank, Update, weighted_sum
from attribution.evaluation.experiments.adaptive import _gains, _submit

OTHER_NORM = 7.0


def _update(seed: int, norm: float) -> Update:
    generator = torch.Generator().manual_seed(seed)
    factors = LowRank(torch.randn(4, 64, generator=generator), torch.randn(64, 4, generator=generator))
    drawn = Update({"layer": factors}, {})
    return weighted_sum([(norm / float(norms([drawn])[0]), drawn)])


@pytest.fixture
def own() -> Update:
    return _update(1, 1.0)


@pytest.fixture
def change() -> Update:
    return _update(2, OTHER_NORM)


def test_a_boost_adds_the_last_change_at_its_own_norm(own, change):
    """Both parts are of the same length, whatever the last round's was."""
    (boosted,) = _submit("boost", "a", own, change, 0).values()
    added = weighted_sum([(1, boosted), (-1, own)])

    assert float(norms([added])[0]) == pytest.approx(1.0, rel=1e-4)
    assert float(cosines([added, change])[0, 1]) == pytest.approx(1.0, abs=1e-4)


def test_a_masked_replay_is_just_not_noticed(own, change):
    """Of the attacker's own length, and at a cosine to the last change that the default threshold does not mind."""
    (masked,) = _submit("masked-replay", "a", own, change, 0).values()

    assert float(norms([masked])[0]) == pytest.approx(1.0, rel=0.05)
    assert float(cosines([masked, change])[0, 1]) == pytest.approx(0.94, abs=0.01)


def test_an_opposed_pair_adds_up_to_what_is_honest(own, change):
    """What the one brings too much, its twin takes away."""
    pair = _submit("opposed-pair", "a", own, change, 0)
    left = weighted_sum([*((1, each) for each in pair.values()), (-1, own)])

    assert {"a", "a.twin"} == pair.keys()
    assert float(norms([left])[0]) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("kind", ["honest", "echo"])
def test_who_attacks_by_its_data_hands_in_what_it_trained(own, change, kind):
    """Nothing is put in its place."""
    assert {} == _submit(kind, "a", own, change, 0)


def test_a_gain_is_over_what_the_same_member_earns_when_honest():
    """A twin's part counts, other clients' do not, and where the honest part is nothing there is no gain to tell."""
    first = {"attacker": "a", "remarks": [], "alike": []}
    cases = {
        "honest/on/seed-0": [first, {"credit": {"a": 1.0, "b": 3.0}}],
        "opposed-pair/on/seed-0": [first, {"credit": {"a": 1.0, "a.twin": 1.0, "b": 2.0}}],
        "honest/on/seed-1": [first, {"credit": {"a": 0.0, "b": 3.0}}],
        "opposed-pair/on/seed-1": [first, {"credit": {"a": 1.0, "a.twin": 1.0, "b": 2.0}}],
        "opposed-pair/off/seed-0": [first, {"credit": {"a": 9.0, "a.twin": 1.0, "b": 2.0}}],
    }

    assert [2.0] == _gains(cases, "opposed-pair", "on")
