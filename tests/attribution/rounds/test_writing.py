"""A round is in the folder whole or not at all, and a run that is resumed begins where the last one ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attribution.errors import RoundsError
from attribution.rounds import writing
from attribution.rounds.documents import Federation, Member, Missing, read_document
from attribution.rounds.documents import Round as RoundDocument
from attribution.rounds.hashing import tensors_sha256
from attribution.rounds.reading import read_rounds
from attribution.rounds.stored_tensors import store_tensors
from attribution.rounds.writing import RoundsWriter, SentUpdate
from tests.attribution.rounds.federations import FEDERATION, MEMBERS, sent, tensors, write_rounds


def test_what_was_recorded_is_what_is_read(tmp_path):
    """Who sent what with which weight, who was missing and why, and each model, by hash and by file."""
    recorded = read_rounds(write_rounds(tmp_path / "rounds"))

    assert FEDERATION == recorded.federation
    assert tensors_sha256(tensors(0.0)) == recorded.beginning.global_sha256
    assert [1, 2] == [each.round for each in recorded.rounds]
    assert [["north", "south", "west"], ["north", "west"]] == [
        [update.client for update in each.updates] for each in recorded.rounds
    ]
    assert ((), (Missing(client="south", node="123", reason="no answer"),)) == tuple(
        each.missing for each in recorded.rounds
    )
    assert tensors_sha256(tensors(3.0)) == recorded.rounds[1].updates[1].sha256
    assert '{"of": "west"}' == recorded.rounds[1].updates[1].statement
    assert all(
        recorded.update_path(each.round, update.client).is_file() for each in recorded.rounds for update in each.updates
    )
    assert [True] * 3 == [recorded.global_path(number).is_file() for number in range(3)]


def test_a_run_goes_on_where_the_last_one_ended(tmp_path):
    """Rounds are counted on, members may join, and the model with which it begins has to be the last one's."""
    write_rounds(tmp_path)
    east = Member(client="east", name="East")
    writer = RoundsWriter(tmp_path, FEDERATION.model_copy(update={"members": (*MEMBERS, east)}))
    with pytest.raises(RoundsError, match=r"wrong base: round 3 would begin with another model than round-0002/"):
        writer.begin(tensors(0.0))
    writer.begin(tensors(2.0))
    writer.add([sent("east", 5.0)], [], tensors(5.0))

    assert [1, 2, 3] == [each.round for each in read_rounds(tmp_path).rounds]
    assert "east" == read_rounds(tmp_path).federation.members[-1].client


@pytest.mark.parametrize(
    ("federation", "words"),
    [
        (FEDERATION.model_copy(update={"consortium": "others"}), "consortium: is another than that of this run"),
        (FEDERATION.model_copy(update={"adapter": {"r": 8}}), "adapter: is another than that of this run"),
        (FEDERATION.model_copy(update={"members": MEMBERS[:2]}), "members: 'west' is no member of this run"),
    ],
)
def test_a_folder_of_others_is_not_gone_on_with(federation: Federation, words, tmp_path):
    """Another consortium, another adapter or a member that is gone: refused before anything is written."""
    before = (write_rounds(tmp_path) / "rounds.json").read_bytes()
    with pytest.raises(RoundsError) as refused:
        RoundsWriter(tmp_path, federation)

    assert words in str(refused.value)
    assert before == (tmp_path / "rounds.json").read_bytes()


def test_a_member_keeps_the_key_that_its_rounds_were_signed_with(tmp_path):
    """Under another key what it sent would be refused for ever; who has sent nothing yet may have a new one."""
    members = [member.model_copy(update={"signing_key": f"{member.client}+00000000+A"}) for member in MEMBERS[:1]]
    writer = RoundsWriter(tmp_path, FEDERATION.model_copy(update={"members": (*members, *MEMBERS[1:])}))
    writer.begin(tensors(0.0))
    new = {
        client: tuple(
            each.model_copy(update={"signing_key": f"{client}+00000000+B"}) if each.client == client else each
            for each in (*members, *MEMBERS[1:])
        )
        for client in ("north", "west")
    }
    RoundsWriter(tmp_path, FEDERATION.model_copy(update={"members": new["north"]}))
    RoundsWriter(tmp_path, FEDERATION.model_copy(update={"members": (*members, *MEMBERS[1:])}))
    writer.add([sent("north", 1.0)], [], tensors(1.0))
    with pytest.raises(RoundsError, match=r"members: 'north': signing_key: is another than .* round 1 was sent under"):
        RoundsWriter(tmp_path, FEDERATION.model_copy(update={"members": new["north"]}))
    RoundsWriter(tmp_path, FEDERATION.model_copy(update={"members": new["west"]}))

    assert "west+00000000+B" == read_rounds(tmp_path).federation.members[2].signing_key


def test_only_drafts_are_removed(tmp_path):
    """A hidden folder of somebody's stays, and a draft that another run left does not stop a round."""
    (tmp_path / ".round-notes").mkdir()
    writer = RoundsWriter(tmp_path, FEDERATION)
    writer.begin(tensors(0.0))
    (tmp_path / ".round-0001").mkdir()
    writer.add([sent("north", 1.0)], [], tensors(1.0))

    assert {".round-notes", "round-0000", "round-0001"} == {
        path.name for path in tmp_path.iterdir() if "round-" in path.name
    }


def test_rounds_without_a_front_page_are_not_gone_on_with(tmp_path):
    """Whose rounds they are, nobody knows."""
    (write_rounds(tmp_path) / "rounds.json").unlink()
    with pytest.raises(RoundsError, match=r"rounds\.json: cannot be read"):
        RoundsWriter(tmp_path, FEDERATION)


def test_of_two_runs_in_one_folder_one_is_refused(tmp_path):
    """While the other writes a round, and after it has added one."""
    first, second = RoundsWriter(tmp_path, FEDERATION), RoundsWriter(tmp_path, FEDERATION)
    first.begin(tensors(0.0))
    with first.draft(), pytest.raises(RoundsError, match="somebody else records a round there"):
        RoundsWriter(tmp_path, FEDERATION)
    with pytest.raises(RoundsError, match="round-0000: is there already, and not of this run"):
        second.begin(tensors(0.0))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("step", ["store_tensors", "_write", "sync"])
def test_a_failure_while_a_round_is_written_leaves_none(step, tmp_path, monkeypatch):
    """Wherever it fails, the rounds before are there, the one at hand is not, and it can be written after all."""
    write_rounds(tmp_path)
    before = _names(tmp_path)
    writer = RoundsWriter(tmp_path, FEDERATION)
    writer.begin(tensors(2.0))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, step, fail)
        with pytest.raises(OSError, match="No space left"):
            writer.add([sent("north", 3.0)], [], tensors(3.0))
    assert before == _names(tmp_path)
    assert 2 == len(read_rounds(tmp_path).rounds)
    writer.add([sent("north", 3.0)], [], tensors(3.0))
    assert 3 == len(read_rounds(tmp_path).rounds)


@pytest.mark.long
def test_a_process_that_is_killed_leaves_no_half_round(tmp_path):
    """Killed between two updates: the reader sees the rounds before, and the next run takes away what was left."""
    write_rounds(tmp_path)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from attribution.rounds.writing import RoundsWriter\n"
        "from tests.attribution.rounds.federations import FEDERATION, sent, tensors\n"
        "class Dies(dict):\n"
        "    def items(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        "writer = RoundsWriter(Path(sys.argv[1]), FEDERATION)\n"
        "writer.begin(tensors(2.0))\n"
        "second = sent('west', 4.0)\n"
        "object.__setattr__(second, 'tensors', Dies())\n"
        "writer.add([sent('north', 3.0), second], [], tensors(3.0))\n"
    )
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=root, env=os.environ, check=False)

    assert -signal.SIGKILL == ran.returncode
    assert {"update-north.safetensors"} == _names(tmp_path / ".round-0003")
    assert 2 == len(read_rounds(tmp_path).rounds)
    RoundsWriter(tmp_path, FEDERATION)
    assert not (tmp_path / ".round-0003").exists()


@pytest.mark.parametrize(
    ("updates", "missing", "words"),
    [
        ([sent("north", 1.0), sent("north", 2.0)], [], "client 'north' is in the round twice"),
        ([sent("north", 1.0)], [Missing(client="north", reason="late")], "client 'north' is among the updates, too"),
        ([sent("north", 1.0, float("nan"))], [], "weight"),
        ([sent("north", 1.0, 0.0)], [], "weight"),
        ([SentUpdate("north", 1.0, tensors(1.0), "x" * 20_000)], [], "statement"),
        ([], [], "nobody sent an update, and yet the model is another"),
    ],
)
def test_a_round_that_means_nothing_is_not_written(updates, missing, words, tmp_path):
    """What the reader would refuse is not written either."""
    writer = RoundsWriter(tmp_path, FEDERATION)
    writer.begin(tensors(0.0))
    with pytest.raises(RoundsError, match=words):
        writer.add(updates, missing, tensors(1.0))

    assert {"rounds.json", "round-0000", ".lock"} == _names(tmp_path)


def test_a_round_that_is_given_up_leaves_nothing(tmp_path):
    """Updates may be kept before it is known whether anything comes of them."""
    writer = RoundsWriter(tmp_path, FEDERATION)
    writer.begin(tensors(0.0))
    with writer.draft() as draft:
        draft.keep(sent("north", 1.0))

    assert {"rounds.json", "round-0000", ".lock"} == _names(tmp_path)
    assert 1 == writer.add([sent("north", 1.0)], [], tensors(1.0)).round


def test_a_round_without_any_update_changes_nothing(tmp_path):
    """All were missing: the round is there and says why, and the model is what it was."""
    writer = RoundsWriter(tmp_path, FEDERATION)
    writer.begin(tensors(0.0))
    writer.add([], [Missing(client="north", node="1", reason="gone")], tensors(0.0))

    assert ((),) == tuple(each.updates for each in read_rounds(tmp_path).rounds)


def test_a_round_document_is_what_a_person_reads(tmp_path):
    """A weight that is whole stays readable, and names stand as they are."""
    write_rounds(tmp_path)

    assert 1.0 == read_document(tmp_path / "round-0001" / "round.json", RoundDocument).updates[0].weight


def test_types_and_sizes_are_kept_as_they_came(tmp_path):
    """A half-precision tensor is read as one, and one without any sizes too."""
    stored = store_tensors(tmp_path / "t", {"x": np.float16(2).reshape(()), "y": np.zeros((0, 3), np.int64)})

    assert {"x": (), "y": (0, 3)} == stored.shapes
