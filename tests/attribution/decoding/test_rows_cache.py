"""Keys and values lie where they were written: rows come, go and change places, and nothing of their size is copied."""

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attribution.decoding.decode import Batch
from attribution.decoding.rows_cache import RowsCache
from attribution.model import FederatedModel
from attribution.records import Sampling
from tests.attribution import consortia

LAYERS, HEADS, WIDTH = 2, 2, 3
ROWS = 8

changes = st.lists(
    st.one_of(
        st.just(("add",)),
        st.tuples(st.just("pass"), st.integers(0, 9), st.lists(st.integers(1, 40), min_size=1, max_size=4)),
        st.tuples(st.just("fall"), st.integers(0, 9), st.lists(st.integers(1, 40), min_size=1, max_size=4)),
        st.tuples(st.just("swap"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("remove"), st.integers(0, 9)),
    ),
    max_size=20,
)


class NewMemory(TorchDispatchMode):
    """The most numbers in one piece of memory that torch took within."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {leaf.untyped_storage().data_ptr() for leaf in _tensors((args, kwargs))}
        made = function(*args, **(kwargs or {}))
        for leaf in _tensors(made):
            if leaf.untyped_storage().data_ptr() not in before:
                self.most = max(self.most, leaf.untyped_storage().nbytes() // leaf.element_size())
        return made


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _states(rows: int, tokens: int) -> torch.Tensor:
    return torch.randn(rows, HEADS, tokens, WIDTH)


class Literal:
    """The same cache as lists of tensors."""

    def __init__(self) -> None:
        self.cache = RowsCache(torch.device("cpu"))
        self.slots: list[list[torch.Tensor]] = []  # for each slot, for each layer: (heads, columns, width)
        self.fell = False

    @torch.inference_mode()
    def run(self, first: int, parts: list[int], *, falls: bool) -> None:
        """A pass over some slots; one that falls ends after the first layer, and leaves what it wrote there."""
        self.fell |= falls
        rows = self.cache.open(first, parts)
        for layer in range(1 if falls else LAYERS):
            new = _states(1, sum(parts))
            seen, doubled = self.cache.update(new, 2 * new, layer)
            of_each = [row for window in seen for row in window]
            for row, (part, end) in enumerate(zip(parts, rows.ends, strict=True)):
                slot = self.slots[first + row]
                whole = torch.cat([slot[layer], new[0, :, end + 1 - part : end + 1]], dim=1)
                torch.testing.assert_close(whole, of_each[row][:, : whole.shape[1]], rtol=0, atol=0)
                assert self.fell or not of_each[row][:, whole.shape[1] :].any()
                if not falls:
                    slot[layer] = whole
            for once, twice in zip(seen, doubled, strict=True):
                torch.testing.assert_close(2 * once, twice, rtol=0, atol=0)
        if not falls:
            self.cache.advance()

    def check(self) -> None:
        """What each slot holds is what it should."""
        assert [slot[0].shape[1] for slot in self.slots] == self.cache.lengths
        for number, layer in enumerate(self.cache.layers):
            for slot, kept in enumerate(self.slots):
                columns = kept[number].shape[1]
                found = layer.tensors[0][slot, :columns].transpose(0, 1)
                torch.testing.assert_close(kept[number], found, rtol=0, atol=0)
            assert not layer.tensors[0][len(self.slots) :].any()


@given(changes)
@settings(max_examples=60, deadline=None)
def test_slots_hold_what_was_written(steps):
    """After any passes, whole or fallen, exchanges and removals each row has its own, and behind it zeros."""
    literal = Literal()
    for name, *numbers in steps:
        slots = len(literal.slots)
        if name == "add":
            assert slots == literal.cache.add()
            literal.slots.append([torch.empty(HEADS, 0, WIDTH)] * LAYERS)
        elif not slots:
            continue
        elif name == "swap":
            one, other = (number % slots for number in numbers)
            literal.cache.swap(one, other)
            literal.slots[one], literal.slots[other] = literal.slots[other], literal.slots[one]
        elif name == "remove":
            literal.cache.fill(numbers[0] % slots, slots - 1)
            literal.cache.pop()
            literal.slots[numbers[0] % slots] = literal.slots[-1]
            literal.slots.pop()
        else:
            first = numbers[0] % slots
            literal.run(first, numbers[1][: slots - first], falls=name == "fall")
        literal.check()


@pytest.fixture(scope="module", params=consortia.FAMILIES)
def any_family(request, tmp_path_factory) -> FederatedModel:
    """A consortium of each family in turn."""
    return consortia.federated(tmp_path_factory.mktemp(request.param), request.param)


def test_neither_a_step_nor_a_join_makes_a_tensor_of_the_cache_s_size(any_family):
    """Once there is room for eight rows, nothing as large as the keys that one layer holds of them is made."""
    batch = Batch(any_family)
    for row in range(ROWS):
        batch.join(str(row), any_family.encode_text("who owns this? " * 2 + "!" * row), Sampling(80))
        batch.step()
    batch.leave("3")
    with NewMemory() as seen:
        for _ in range(2):
            assert ROWS - 1 == len(batch.step())
        batch.join("late", any_family.encode_text("late"), Sampling(9))
        assert "late" in {step.key for step in batch.step()}
    keys = batch._cache.layers[0].tensors[0]

    assert (ROWS, 64) == tuple(keys.shape[:2])
    assert 0 < seen.most < ROWS * 40 * keys.shape[2] * keys.shape[3]


def test_no_copy_of_the_head_is_made_for_several_prompts(any_family):
    """Prompts of unlike lengths that are run together make nothing of the size of the head's weights."""
    batch = Batch(any_family)
    for row in range(ROWS):
        batch.join(str(row), any_family.encode_text("who?" + "!" * (row % 2)), Sampling(3))
    with NewMemory() as seen:
        assert ROWS == len(batch.step())

    assert 0 < seen.most < any_family.layers.lm_head.weight.numel()


def test_memory_is_given_back_with_the_last_row(any_family):
    """When nobody is left the cache holds nothing."""
    batch = Batch(any_family)
    batch.join("r", any_family.encode_text("who?"), Sampling(2))
    batch.step()
    assert 1 == len(batch._cache.lengths)
    batch.leave("r")

    assert ([], []) == (batch._cache.layers, batch._cache.lengths)
