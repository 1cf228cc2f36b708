"""`protoken demo` clears its own folder and nobody else's."""

import os
import shutil
from pathlib import Path

import pytest

from attribution.errors import AttributionError
from deployment.cli import main
from deployment.cli.service.demo_folder import STAMP, demo_folder
from deployment.errors import ServiceError

SERVICE = (
    "ledger.db",
    "ledger.db-wal",
    "ledger.db.pepper",
    "signing.key",
    "spool/a/1.tokens",
    "texts/1.json",
    "serve.log",
)


def _fill(folder: Path, names=SERVICE) -> dict[str, str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return _contents(folder)


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_of_a_service_is_refused_in_one_line(capsys, tmp_path):
    """`demo --work var` says what to do before anything is trained, and the service keeps its ledger."""
    before = _fill(tmp_path / "var")

    with pytest.raises(SystemExit) as ended:
        main(["demo", "--work", str(tmp_path / "var")])

    err = capsys.readouterr().err
    assert (1, 1) == (ended.value.code, len(err.strip().splitlines()))
    assert str(tmp_path / "var") in err
    assert "--work" in err
    assert before == _contents(tmp_path / "var")


@pytest.mark.parametrize("name", ["notes.txt", "ledger.db", "spool/a/1.tokens", ".git/config", "recipe.sha256"])
def test_any_file_of_others_makes_a_folder_theirs(tmp_path, name):
    """One file is enough, a stamp that no demo wrote, too."""
    before = _fill(tmp_path / "var", [name])

    with pytest.raises(ServiceError, match="no demo's folder"), demo_folder(tmp_path / "var"):
        pass

    assert before == _contents(tmp_path / "var")


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "spool/a/1.tokens", "texts/1.json"])
def test_what_somebody_is_at_work_with_stays(tmp_path, name):
    """A service may be started by hand with what a demo left: the next demo says whose process has it open."""
    before = _fill(tmp_path / "demo", [*SERVICE[:3], *SERVICE[4:]]) | {STAMP: ""}
    (tmp_path / "demo" / STAMP).touch()
    (tmp_path / "link").symlink_to(tmp_path / "demo")

    in_use = pytest.raises(ServiceError, match=f"process {os.getpid()} has the ledger")
    with (tmp_path / "demo" / name).open(), in_use, demo_folder(tmp_path / "link"):
        pass
    assert before == _contents(tmp_path / "demo")
    with demo_folder(tmp_path / "link"):
        assert {STAMP, "serve.log"} == set(_contents(tmp_path / "demo"))


@pytest.mark.parametrize("name", ["file", "file/deeper", "nowhere"])
def test_what_is_no_folder_is_refused(tmp_path, name):
    """A file, or a link that leads nowhere, is named."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")

    with pytest.raises(AttributionError, match=name.split("/")[0]), demo_folder(tmp_path / name):
        pass

    assert "mine" == (tmp_path / "file").read_text()


@pytest.mark.parametrize("stamp", ["", "0" * 64])
def test_an_earlier_demo_is_cleared_and_its_bundle_stays(tmp_path, stamp):
    """A demo runs again where one ran before, also where that was ended while it trained; what is not its stays."""
    _fill(tmp_path, [*SERVICE, "bundle/consortium.json", "ledger.db.backup", "notes.txt"])
    (tmp_path / STAMP).write_text(stamp)

    with demo_folder(tmp_path):
        left = _contents(tmp_path)

    assert {"serve.log", "bundle/consortium.json", "ledger.db.backup", "notes.txt", STAMP} == set(left)
    assert stamp == left[STAMP]


def test_a_demo_that_was_killed_at_its_first_training_begins_anew(tmp_path):
    """The unfinished bundle of an older version's demo makes the folder nobody else's."""
    _fill(tmp_path, [".building-x/bundle/global/config.json"])

    with demo_folder(tmp_path):
        assert (tmp_path / STAMP).is_file()


def test_two_demos_do_not_share_a_folder(tmp_path):
    """The ledger of a demo that stays up is not removed by another; where it has ended, the next one runs."""
    with demo_folder(tmp_path):
        _fill(tmp_path, ["ledger.db"])
        with pytest.raises(ServiceError, match="another demo runs"), demo_folder(tmp_path):
            pass
        assert "ledger.db" == (tmp_path / "ledger.db").read_text()
    with demo_folder(tmp_path):
        assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize("picture", ["notes.svg", "folder", "nowhere", "file/picture.svg"])
def test_a_picture_goes_over_nothing_of_others(capsys, tmp_path, picture):
    """`demo --picture` refuses somebody's file before anything is trained, and what is no file."""
    (tmp_path / "notes.svg").write_text("<svg >mine</svg>")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    before = _contents(tmp_path)

    with pytest.raises(SystemExit) as ended:
        main(["demo", "--work", str(tmp_path / "work"), "--picture", str(tmp_path / picture)])

    err = capsys.readouterr().err
    assert (1, 1) == (ended.value.code, len(err.strip().splitlines()))
    assert picture.split("/")[0] in err
    assert before == _contents(tmp_path)


def test_an_earlier_picture_is_replaced(tmp_path, monkeypatch):
    """What `save_picture` wrote it may write again."""
    from deployment.cli import output  # noqa: PLC0415

    monkeypatch.setattr(output.console, "record", True)
    for text in ("one", "two"):
        output.console.print(text)
        output.require_picture_place(tmp_path / "some/where.svg")
        output.save_picture(tmp_path / "some/where.svg", "title")

    assert "two" in (tmp_path / "some/where.svg").read_text()
    shutil.rmtree(tmp_path / "some")
