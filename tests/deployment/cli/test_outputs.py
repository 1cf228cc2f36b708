"""Commands that write files go over earlier ones of the same kind, and over nothing of others."""

import json
from pathlib import Path

import pytest

from deployment.cli import main


def _run(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return ended.value.code or 0, capsys.readouterr().err


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


COMMANDS = {
    "dashboards": (["dashboards"], ["protoken-service.json"]),
    "evaluate": (["evaluate", "E3", "--quick", "--work", "WORK"], ["report.html", "report.md", "E3.json"]),
}


@pytest.mark.parametrize(("command", "name"), [(c, name) for c, (_, names) in COMMANDS.items() for name in names])
@pytest.mark.parametrize("content", ["mine", "{}", '{"uid": "of another board"}'])
def test_a_file_of_others_is_not_written_over(capsys, tmp_path, command, name, content):
    """One clear line names the file, nothing is written over, and no experiment runs for it first."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(content)
    arguments = [each.replace("WORK", str(tmp_path / "work")) for each in COMMANDS[command][0]]

    code, err = _run(capsys, *arguments, "--out", str(tmp_path / "out"))

    assert (1, 1) == (code, len(err.strip().splitlines()))
    assert str(tmp_path / "out" / name) in err
    assert {f"out/{name}": content} == _contents(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("out", ["file", "file/deeper", "nowhere", "/proc/protoken"])
def test_what_is_no_folder_is_refused(capsys, tmp_path, command, out):
    """A file, a link that leads nowhere and a place that cannot be written are one clear line each."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    arguments = [each.replace("WORK", str(tmp_path / "work")) for each in COMMANDS[command][0]]

    code, err = _run(capsys, *arguments, "--out", str(tmp_path / out))

    assert (1, 1) == (code, len(err.strip().splitlines()))
    assert out.split("/")[0] in err
    assert {"file": "mine"} == _contents(tmp_path)


def test_boards_are_written_again(capsys, tmp_path):
    """What the command wrote it writes again, beside whatever else lies there."""
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        assert 0 == _run(capsys, "dashboards", "--out", str(tmp_path))[0]

    assert "mine" == (tmp_path / "notes.txt").read_text()
    assert "protoken-service" == json.loads((tmp_path / "protoken-service.json").read_text())["uid"]


WRITERS = {
    "period payouts --out": ["period", "payouts", "2026-11", "--out", "PLACE"],
    "period payouts --sepa": ["period", "payouts", "2026-11", "--sepa", "PLACE"],
    "member keygen": ["member", "keygen", "PLACE", "--name", "hospital.example"],
    "member sign": [
        *("member", "sign", "u", "--before", "b", "--key", "k", "--consortium", "c", "--client", "n"),
        *("--round", "1", "--weight", "1", "--out", "PLACE"),
    ],
    "ledger backup": ["ledger", "backup", "PLACE"],
    "keys create --signing": ["keys", "create", "--signing", "--out", "PLACE"],
    "demo --picture": ["demo", "--picture", "PLACE"],
}


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("place", ["new/", "new/.", "there"])
def test_a_folder_is_not_the_name_of_a_file(capsys, monkeypatch, tmp_path, command, place):
    """A command that writes one file writes none where a path ends in a slash, or where a folder is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    code, err = _run(capsys, *(each.replace("PLACE", place) for each in WRITERS[command]))

    assert (1, 1) == (code, len(err.strip().splitlines()))
    assert f"'{place}' names a folder" in err
    assert [tmp_path / "there"] == list(tmp_path.iterdir())
