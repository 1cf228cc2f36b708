"""Recorded rounds are read only where everything follows; each refusal names the file and the field."""

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from attribution.errors import RoundsError
from attribution.rounds.hashing import tensors_sha256
from attribution.rounds.reading import RecordedRounds, read_rounds
from attribution.rounds.stored_tensors import read_stored, store_tensors
from tests.attribution.rounds.federations import tensors, write_rounds


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """Rounds that nobody touched."""
    return write_rounds(tmp_path_factory.mktemp("good") / "rounds", 3)


@pytest.fixture
def rounds(good: Path, tmp_path: Path) -> Path:
    """A copy of them, to be spoilt."""
    return shutil.copytree(good, tmp_path / "rounds")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a document."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _update(field: str, value: Any) -> Callable[[Path], object]:
    return lambda rounds: edit(rounds / "round-0002/round.json", lambda each: each["updates"][0].update({field: value}))


def _round(field: str, value: Any) -> Callable[[Path], object]:
    return lambda rounds: edit(rounds / "round-0002/round.json", lambda each: each.update({field: value}))


def _front(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda rounds: edit(rounds / "rounds.json", change)


def _twice(rounds: Path) -> None:
    edit(rounds / "round-0002/round.json", lambda each: each["updates"].append(each["updates"][0]))


def _swap(rounds: Path) -> None:
    one, other = (rounds / f"round-0001/update-{client}.safetensors" for client in ("north", "west"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _replay(rounds: Path) -> None:
    """The first round once more, as the third."""
    shutil.rmtree(rounds / "round-0003")
    shutil.copytree(rounds / "round-0001", rounds / "round-0003")
    edit(rounds / "round-0003/round.json", lambda each: each.update(round=3))


def _drop(rounds: Path) -> None:
    edit(rounds / "round-0002/round.json", lambda each: each["updates"].pop())


def _replace_tensors(name: str, those: dict[str, np.ndarray]) -> Callable[[Path], None]:
    """Other tensors in a file, and their hash in the document."""

    def change(rounds: Path) -> None:
        save_file(those, rounds / "round-0002" / f"update-{name}.safetensors")
        _update("sha256", tensors_sha256(those))(rounds)

    return change


def _link(rounds: Path) -> None:
    path = rounds / "round-0002/update-north.safetensors"
    path.rename(rounds.parent / "outside.safetensors")
    path.symlink_to(rounds.parent / "outside.safetensors")


def _link_round(rounds: Path) -> None:
    (rounds / "round-0002").rename(rounds.parent / "outside")
    (rounds / "round-0002").symlink_to(rounds.parent / "outside")


def _overwrite(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda rounds: (rounds / name).write_bytes(content)


def _truncate(rounds: Path) -> None:
    path = rounds / "round-0002/update-north.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


HEAD = (1 << 40).to_bytes(8, "little") + b"{}"
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "rounds.json: cannot be read: no such file; is "),
    "no front page": (lambda rounds: (rounds / "rounds.json").unlink(), "a folder of recorded rounds?"),
    "front page is no JSON": (_overwrite("rounds.json", b"{"), "rounds.json: not readable as JSON"),
    "front page is deep": (_overwrite("rounds.json", b"[" * 100_000), "rounds.json: is nested too deeply"),
    "a name given twice": (
        _overwrite("rounds.json", b'{"a": 1, "a": 2}'), "rounds.json: not readable as JSON: 'a' is given twice"
    ),
    "another version": (_front(lambda page: page.update(schema_version=2)), "rounds.json: schema_version: "),
    "an unknown field": (_front(lambda page: page.update(more=1)), "rounds.json: more: "),
    "no members": (_front(lambda page: page.update(members=[])), "rounds.json: members: "),
    "a client id that is a path": (_front(lambda page: page["members"][0].update(client="../x")), "members.0.client: "),
    "a ledger's account": (_front(lambda page: page["members"][0].update(client="commons")), "members.0.client: "),
    "a client twice": (
        _front(lambda page: page["members"][0].update(client="west")), "client 'west' is given to two members"
    ),
    "a signing key of two members": (
        _front(
            lambda page: [
                each.update(signing_key=f"{each['client']}+{number:08x}+AAb/+k")
                for number, each in enumerate(page["members"])
            ]
        ),
        "signing_key …'AAb/+k' is given to two members, so either could sign for the other",
    ),
    "a key of two members": (
        _front(lambda page: [each.update(node_public_key="k") for each in page["members"]]),
        "node_public_key 'k' is given to two members",
    ),
    "no rounds": (lambda rounds: [shutil.rmtree(each) for each in rounds.glob("round-*")], "holds no round"),
    "a gap": (lambda rounds: shutil.rmtree(rounds / "round-0002"), "round-0002: is missing, and later rounds"),
    "no beginning": (lambda rounds: shutil.rmtree(rounds / "round-0000"), "round-0000: is missing"),
    "another number": (_round("round", 7), "round-0002/round.json: round: is 7"),
    "a number that is text": (_round("round", "2"), "round-0002/round.json: round: "),
    "wrong base": (_round("before_sha256", "0" * 64), "round-0002/round.json: before_sha256: wrong base"),
    "a replayed round": (_replay, "round-0003/round.json: before_sha256: wrong base"),
    "an unknown client": (_update("client", "mars"), "updates: client 'mars' is no member"),
    "an unknown client that is missing": (
        _round("missing", [{"client": "mars", "node": None, "reason": "x"}]),
        "missing: client 'mars' is no member",
    ),
    "a reason of two lines": (
        _round("missing", [{"client": None, "node": None, "reason": "a\nb"}]), "missing.0.reason"
    ),
    "a double client": (_twice, "updates: client 'north' is in the round twice"),
    "a weight of none": (_update("weight", 0), "round-0002/round.json: updates.0.weight: "),
    "a negative weight": (_update("weight", -1), "round-0002/round.json: updates.0.weight: "),
    "a weight that is infinite": (_update("weight", float("inf")), "round-0002/round.json: "),
    "a weight that is true": (_update("weight", True), "round-0002/round.json: updates.0.weight: "),
    "a statement without an end": (_update("statement", "x" * 20_000), "updates.0.statement: "),
    "a swapped update": (_swap, "update-north.safetensors: has another hash than updates.north.sha256 of round.json"),
    "a dropped client": (_drop, "update-west.safetensors: is in the folder of a round, and round.json names no such"),
    "a missing update": (
        lambda rounds: (rounds / "round-0001/update-south.safetensors").unlink(),
        "update-south.safetensors: cannot be read: no such file",
    ),
    "another global model": (
        lambda rounds: store_tensors(rounds / "round-0001/global.safetensors", tensors(9.0)),
        "round-0001/global.safetensors: has another hash than after_sha256",
    ),
    "another beginning": (
        lambda rounds: store_tensors(rounds / "round-0000/global.safetensors", tensors(9.0)),
        "round-0000/global.safetensors: has another hash than global_sha256",
    ),
    "a tensor too many": (
        _replace_tensors("north", tensors(1.0) | {"c": np.ones(1)}),
        "update-north.safetensors: tensor 'c' is not in the model",
    ),
    "a tensor too few": (_replace_tensors("north", {"a": tensors(1.0)["a"]}), "tensor 'b' is missing"),
    "a tensor of other sizes": (
        _replace_tensors("north", tensors(1.0) | {"b": np.ones(5)}),
        "tensor 'b' has the sizes [5], and in the model [4]",
    ),
    "a file that ends early": (_truncate, "update-north.safetensors: not a readable safetensors file"),
    "a giant head": (_overwrite("round-0002/update-north.safetensors", HEAD), "not a readable safetensors file"),
    "an empty file": (_overwrite("round-0002/update-north.safetensors", b""), "update-north.safetensors: is empty"),
    "a pickle": (_overwrite("round-0002/update-north.safetensors", b"\x80\x04."), "is a pickle, which is never opened"),
    "a link to a file outside": (_link, "update-north.safetensors: is a link"),
    "a link to a folder outside": (_link_round, "round-0002: is no folder"),
}  # fmt: skip


def test_rounds_that_nobody_touched_are_read(rounds):
    """Three rounds, and what begins with a dot or bears another name beside them is nobody's matter."""
    (rounds / ".round-0004").mkdir()
    (rounds / "notes.txt").write_text("ours")

    assert 3 == len(read_rounds(rounds).rounds)


@pytest.mark.parametrize("case", SPOILT)
def test_what_does_not_follow_is_refused_by_name(case, rounds):
    """One line that names the file and what is wrong with it."""
    spoil, words = SPOILT[case]
    spoil(rounds)
    with pytest.raises(RoundsError) as refused:
        read_rounds(rounds)

    assert words in str(refused.value)
    assert 1 == len(str(refused.value).splitlines())
    assert str(rounds) in str(refused.value)


@pytest.mark.long
@settings(max_examples=500)
@given(st.data())
def test_whatever_is_altered_is_refused_or_changes_nothing(good, tmp_path_factory, data):
    """Bytes changed, cut off or put in anywhere: one line says so, or it was a name or a weight in a document."""
    rounds = shutil.copytree(good, tmp_path_factory.mktemp("altered") / "rounds")
    path = data.draw(st.sampled_from(sorted(path for path in rounds.rglob("*") if path.suffix)))
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content)))
    content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    path.write_bytes(content)
    refusal, recorded, expected = "", None, read_rounds(good)
    try:
        recorded = read_rounds(rounds)
    except RoundsError as error:
        refusal = str(error)
    shutil.rmtree(rounds)

    assert recorded is not None or 1 == len(refusal.splitlines())
    assert recorded is None or _hashes(expected) == _hashes(recorded)


def _hashes(recorded: RecordedRounds) -> list[str]:
    """Which models and updates are in rounds, in order."""
    updates = [(update.client, update.sha256) for each in recorded.rounds for update in each.updates]
    return [recorded.beginning.global_sha256, *(each.after_sha256 for each in recorded.rounds), *map(str, updates)]


def test_a_type_that_is_not_known_is_refused(tmp_path):
    """Four-bit numbers have no bytes of their own."""
    head = json.dumps({"x": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "t").write_bytes(len(head).to_bytes(8, "little") + head + b"\0\0")
    with pytest.raises(RoundsError, match="tensor 'x' holds F4; known are"):
        read_stored(tmp_path / "t")


@pytest.mark.long
def test_a_large_file_is_read_in_little_memory(tmp_path):
    """64 MiB are hashed with a few held at a time."""
    store_tensors(tmp_path / "t", {"x": np.ones(1 << 24, np.float32)})
    tracemalloc.start()
    try:
        read_stored(tmp_path / "t")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most < 4 << 20
