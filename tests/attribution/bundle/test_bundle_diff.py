"""Two bundles of one base are told apart client by client, and the figures are those of the whole matrices."""

from pathlib import Path

import pytest
import torch

from attribution.bundle.bundle import Bundle, open_bundle
from attribution.bundle.bundle_diff import client_changes
from attribution.bundle.updates import Update
from attribution.errors import BundleError
from tests.attribution import consortia


def bundle_of(folder: Path, clients: str, *, kind: str = "lora", seed: int = 0, weight: float = 0.25) -> Bundle:
    """A bundle of some of the clients a to d, each with the update and weight that it has in every such bundle."""
    model = consortia.base_model("llama", seed)
    updates = consortia.updates(model, "abcd", kind=kind)
    chosen = {client: updates[client] for client in clients}
    return open_bundle(consortia.write_consortium(folder, model, chosen, dict.fromkeys(clients, weight)))


def whole(update: Update, like: dict[str, torch.Tensor]) -> torch.Tensor:
    """All that an update changes, multiplied out, as one long vector; zeros where it changes nothing."""
    changes = [update.difference(name) for name in like]
    pairs = zip(changes, like.values(), strict=True)
    return torch.cat(
        [(torch.zeros_like(one) if change is None else change).double().flatten() for change, one in pairs]
    )


def test_who_joined_and_who_left_is_told(tmp_path: Path) -> None:
    """In the order of the later bundle, and then who left; a client alone in one bundle went all the way."""
    before, after = bundle_of(tmp_path / "1", "abc"), bundle_of(tmp_path / "2", "dba")
    changes = {change.client: change for change in client_changes(before, after)}

    assert ["d", "b", "a", "c"] == list(changes)
    assert ["joined", "unchanged", "unchanged", "left"] == [change.state for change in changes.values()]
    assert (None, changes["d"].distance) == changes["d"].norms
    assert (changes["c"].distance, None) == changes["c"].norms
    assert {None} == {changes["c"].cosine, changes["d"].cosine}
    assert ((None, 0.25), (0.25, None)) == (changes["d"].weights, changes["c"].weights)


@pytest.mark.parametrize("kinds", [("lora", "lora"), ("full", "full"), ("lora", "full")], ids="-".join)
def test_norms_distance_and_cosine_are_those_of_the_whole_matrices(kinds: tuple[str, str], tmp_path: Path) -> None:
    """Factors against factors, differences against differences, and one against the other."""
    before = bundle_of(tmp_path / "1", "abc", kind=kinds[0])
    after = bundle_of(tmp_path / "2", "abc", kind=kinds[1], weight=0.2)
    for change in client_changes(before, after):
        one, other = before.updates[change.client], after.updates[change.client]
        parameters = dict(consortia.base_model("llama").named_parameters(remove_duplicate=False))
        first, second = whole(one, parameters), whole(other, parameters)

        assert "changed" == change.state
        assert (0.25, 0.2) == change.weights
        assert (float(first.norm()), float(second.norm())) == pytest.approx(change.norms, rel=1e-5)
        assert float((second - first).norm()) == pytest.approx(change.distance, rel=1e-4)
        assert float(first @ second / first.norm() / second.norm()) == pytest.approx(change.cosine, abs=1e-6)


def test_update_that_is_the_same_file_is_unchanged_to_the_last_digit(tmp_path: Path) -> None:
    """A distance that rounding makes of two equal norms would look like a change."""
    before, after = bundle_of(tmp_path / "1", "abc"), bundle_of(tmp_path / "2", "abc")

    assert {("unchanged", 0.0)} == {(change.state, change.distance) for change in client_changes(before, after)}


def test_bundles_of_different_bases_are_not_compared(tmp_path: Path) -> None:
    """What an update adds means something to its own base model alone: both are named."""
    before, after = bundle_of(tmp_path / "1", "abc"), bundle_of(tmp_path / "2", "abc", seed=1)
    with pytest.raises(BundleError, match="whose files differ") as told:
        client_changes(before, after)

    assert str(before.path) in str(told.value)
    assert str(after.path) in str(told.value)
