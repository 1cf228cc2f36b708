"""What the aggregator makes of submitted updates, its defences against cheating members, and the warnings of verify."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.bundle.bundle import open_bundle
from attribution.bundle.similarity import cosines, gram, norms
from attribution.bundle.suspicions import suspicions
from attribution.bundle.updates import LowRank, Update, weighted_sum
from attribution.errors import RecipeError
from attribution.training.aggregation import Defences, Previous, aggregate
from tests.attribution import consortia

ALL = Defences(clip_to_median=True, cap_counts=1.0, drop_duplicates=0.95)


def _update(seed: int, *, size: float = 1.0, kind: str = "both") -> Update:
    """A random change of two matrices and a vector: by factors, whole, or one matrix both ways."""
    draw = torch.Generator().manual_seed(seed)
    factors = LowRank(torch.randn(2, 5, generator=draw), size * torch.randn(4, 2, generator=draw))
    whole = {
        "up.weight": size * torch.randn(4, 5, generator=draw),
        "norm.weight": size * torch.randn(3, generator=draw),
    }
    return Update({"up": factors} if kind != "full" else {}, whole if kind != "lora" else {})


def _flat(update: Update) -> torch.Tensor:
    """The whole change as one vector, every parameter in its place."""
    shapes = {"up.weight": (4, 5), "norm.weight": (3,)}
    parts = []
    for name, shape in shapes.items():
        difference = update.difference(name)
        parts.append((torch.zeros(shape) if difference is None else difference).flatten().double())
    return torch.cat(parts)


KINDS = st.lists(st.sampled_from(["both", "lora", "full", "nothing"]), min_size=1, max_size=5)


@pytest.mark.long
@given(kinds=KINDS, seed=st.integers(0, 10_000))
def test_products_norms_and_cosines_are_those_of_the_whole_vectors(kinds, seed):
    """Inner products of factors and whole differences equal those of the multiplied-out vectors, in every mixture."""
    updates = [Update() if kind == "nothing" else _update(seed + i, kind=kind) for i, kind in enumerate(kinds)]
    vectors = torch.stack([_flat(update) for update in updates])
    expected = vectors @ vectors.T
    lengths = vectors.norm(dim=1)

    torch.testing.assert_close(gram(updates), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norms(updates), lengths, rtol=1e-4, atol=1e-5)
    scale = lengths.unsqueeze(0) * lengths.unsqueeze(1)
    wanted = torch.where(scale > 0, expected / scale.clamp(min=1e-30), 0.0)
    torch.testing.assert_close(cosines(updates), wanted, rtol=1e-3, atol=1e-4)


COUNTS = st.lists(st.integers(1, 10**6), min_size=1, max_size=6)


@given(counts=COUNTS, seed=st.integers(0, 1000))
def test_without_defences_it_is_fedavg(counts, seed):
    """With no defence, weights are the declared parts and the change is the weighted mean, untouched and unremarked."""
    submitted = {f"c{i}": _update(seed + i) for i in range(len(counts))}
    found = aggregate(submitted, dict(zip(submitted, counts, strict=True)), Defences())

    assert found.weights == {f"c{i}": count / sum(counts) for i, count in enumerate(counts)}
    assert found.remarks == ()
    expected = sum(
        (count / sum(counts) * _flat(each) for count, each in zip(counts, submitted.values(), strict=True)),
        torch.zeros(23),
    )
    torch.testing.assert_close(_flat(found.change), expected, rtol=1e-4, atol=1e-4)


@given(counts=COUNTS, sizes=st.data(), seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_what_is_merged_is_what_is_credited(counts, sizes, seed):
    """Whatever the defences did, weights sum to 1 and the change is Σ ρ_i of exactly the updates that are returned."""
    drawn = sizes.draw(st.lists(st.sampled_from([0.01, 1.0, 100.0]), min_size=len(counts), max_size=len(counts)))
    submitted = {f"c{i}": _update(seed + i, size=size) for i, size in enumerate(drawn)}
    found = aggregate(submitted, dict(zip(submitted, counts, strict=True)), ALL)

    assert sum(found.weights.values()) == pytest.approx(1)
    merged = sum((found.weights[c] * _flat(update) for c, update in found.updates.items()), torch.zeros(23))
    torch.testing.assert_close(_flat(found.change), merged, rtol=1e-3, atol=1e-4)
    cap = statistics.median(norms(list(submitted.values())).tolist())
    assert all(length <= cap * 1.0001 for length in norms(list(found.updates.values())).tolist())
    counted = [found.weights[client] for client in submitted]
    assert max(counted) <= statistics.median(counts) / sum(min(c, statistics.median(counts)) for c in counts) + 1e-9


def test_scaling_an_update_gains_nothing_over_the_median():
    """A member that multiplies its update by ten or a thousand is merged as one and the same clipped update."""
    honest = {c: _update(i) for i, c in enumerate("abcde")}
    merged = []
    for factor in (10.0, 1000.0):
        grown = {**honest, "a": weighted_sum([(factor, honest["a"])])}
        found = aggregate(grown, dict.fromkeys(grown, 5), Defences(clip_to_median=True))
        assert any("'a' was clipped" in remark for remark in found.remarks)
        merged.append(_flat(found.updates["a"]))

    torch.testing.assert_close(merged[0], merged[1], rtol=1e-3, atol=1e-5)


class TestDuplicates:
    """Of two alike the one committed first stays; a replay of an earlier round is left out."""

    def test_a_copy_is_left_out(self):
        """A copied update, also a scaled one, earns weight 0 and is named; the rest is weighted anew."""
        first = _update(1)
        submitted = {"a": first, "b": _update(2), "thief": weighted_sum([(3.0, first)])}
        found = aggregate(submitted, dict.fromkeys(submitted, 4), Defences(drop_duplicates=0.95))

        assert found.weights == {"a": 0.5, "b": 0.5, "thief": 0.0}
        assert found.updates["thief"].parameters() == set()
        assert found.remarks == ("client 'thief' was left out: cosine 1.000 to the update of 'a'",)

    def test_a_replay_is_left_out(self):
        """The last round's change, or one's own earlier update, handed in again, is left out."""
        change, own = _update(7), _update(8)
        submitted = {"a": _update(1), "b": own, "c": change}
        found = aggregate(
            submitted, dict.fromkeys(submitted, 1), Defences(drop_duplicates=0.9), Previous(change, {"b": own})
        )

        assert found.weights == {"a": 1.0, "b": 0.0, "c": 0.0}
        assert ["own update of an earlier round", "last round's change"] == [
            next(what for what in ("own update of an earlier round", "last round's change") if what in remark)
            for remark in found.remarks
        ]

    def test_an_empty_update_is_no_duplicate(self):
        """Two members who changed nothing are not copies of each other: they earn nothing anyway."""
        submitted = {"a": Update(), "b": Update(), "c": _update(1)}
        found = aggregate(submitted, dict.fromkeys(submitted, 1), ALL)

        assert found.remarks == ()

    def test_nothing_left_is_refused(self):
        """A round in which every update is a replay is refused."""
        change = _update(7)
        with pytest.raises(RecipeError, match="nothing is left"):
            aggregate({"a": change}, {"a": 1}, Defences(drop_duplicates=0.9), Previous(change, {}))


class TestSuspicions:
    """`consortium verify` warns of what looks wrong, with the figures, and says nothing about honest members."""

    def _said(self, tmp_path, updates, weights=None) -> tuple[str, ...]:
        return suspicions(
            open_bundle(consortia.write_consortium(tmp_path, consortia.base_model("llama"), updates, weights))
        )

    def test_honest_members_are_not_suspected(self, tmp_path):
        """Independent updates of one size and even weights give no warning."""
        assert self._said(tmp_path, consortia.updates(consortia.base_model("llama"), "abcd")) == ()

    def test_each_kind_of_cheating_is_named(self, tmp_path):
        """A scaled update, a copied one, an empty one and a heavy weight are each named with client and figure."""
        updates = consortia.updates(consortia.base_model("llama"), "abcde")
        updates["b"] = weighted_sum([(10.0, updates["b"])])
        updates["d"] = updates["c"]
        updates["e"] = Update()
        said = self._said(tmp_path, updates, {"a": 0.6, "b": 0.1, "c": 0.1, "d": 0.1, "e": 0.1})

        assert any("client 'b'" in each and "times as large" in each for each in said)
        assert any("clients 'c' and 'd'" in each and "cosine 1.000" in each for each in said)
        assert "client 'e' changed nothing" in said
        assert any("client 'a' has weight 0.600, 3.0 times an even share" in each for each in said)
