"""`protoken consortium` on recorded rounds: imported, verified, shown round by round, held against a later bundle."""

import json
from pathlib import Path

import pytest

from attribution.base.references import load_model
from attribution.rounds.documents import Missing
from tests.attribution import consortia
from tests.attribution.importers.recordings import ADAPTER, Recording, adapter_start
from tests.deployment.cli.test_commands import run

MISSING = (Missing(client="south", node="17", reason="lost its connection"), Missing(node="99", reason="no member"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and the rounds that were trained over it."""
    folder = tmp_path_factory.mktemp("recorded")
    model = consortia.base_model("llama")
    consortia.save_base(model, folder / "base")
    start = adapter_start(load_model(folder / "base"))
    recording = Recording(folder / "rounds", ("north", "south", "never"), start, adapter=ADAPTER)
    recording.run({"north": 3, "south": 1})
    recording.run({"north": 1}, missing=MISSING)
    return folder


@pytest.fixture(scope="module")
def arguments(place: Path) -> list[str]:
    """The command that imports them, but for its target."""
    return [
        "consortium",
        "import",
        "--rounds",
        str(place / "rounds"),
        "--base",
        f"path:{place / 'base'}",
        "--unsigned",
        "--out",
    ]


def test_rounds_are_imported_verified_and_shown(capsys, arguments, tmp_path):
    """The table has a row for each update, for the server and for who was missing; the JSON is the manifest."""
    target = str(tmp_path / "bundle")
    code, out, err = run(capsys, *arguments, target)
    assert (0, "") == (code, err)
    assert run(capsys, "consortium", "verify", target)[0] == 0
    code, shown, _ = run(capsys, "consortium", "show", target)
    assert (0, out) == (code, shown)
    _, text, _ = run(capsys, "consortium", "show", target, "--json")
    rounds = json.loads(text)["rounds"]

    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.count("│") == 6]
    first, second = ([update["norm"] for update in each["updates"]] for each in rounds)
    residuals = [each["residual_norm"] for each in rounds]
    assert [
        ["1", "north", "0.7500", f"{first[0]:.4g}", ""],
        ["1", "south", "0.2500", f"{first[1]:.4g}", ""],
        ["1", "(server)", "–", f"{residuals[0]:.4g}", "besides averaging"],
        ["2", "north", "1.0000", f"{second[0]:.4g}", ""],
        ["2", "(server)", "–", f"{residuals[1]:.4g}", "besides averaging"],
        ["2", "south", "–", "–", "missing: lost its connection"],
        ["2", "node 99", "–", "–", "missing: no member"],
    ] == rows[-7:]
    assert "never took part: never" in shown
    assert json.loads((tmp_path / "bundle" / "consortium.json").read_text())["rounds"] == rounds


def test_a_later_round_is_imported_over_the_older_bundle(capsys, place, arguments, tmp_path):
    """The grown folder gives the next bundle at the same place; `diff` says who moved and who kept its part."""
    run(capsys, *arguments, str(tmp_path / "before"))
    run(capsys, *arguments, str(tmp_path / "bundle"))
    start = adapter_start(load_model(place / "base"))
    grown = Recording(tmp_path / "rounds", ("north", "south", "never"), start, adapter=ADAPTER)
    grown.run({"north": 3, "south": 1}, {"north": 1}, {"never": 1})
    again = [word if word != str(place / "rounds") else str(tmp_path / "rounds") for word in arguments]
    assert run(capsys, *again, str(tmp_path / "bundle"))[0] == 0
    code, out, _ = run(capsys, "consortium", "diff", str(tmp_path / "before"), str(tmp_path / "bundle"), "--json")
    document = json.loads(out)

    assert (0, [2, 3]) == (code, document["rounds"])
    assert {"north": "unchanged", "south": "unchanged", "never": "changed"} == {
        change["client"]: change["state"] for change in document["clients"]
    }


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--client", "a=b"], "give the folder of each client, or one of recorded rounds"),
        (["--full"], "recorded rounds say themselves what they are of"),
        (["--consortium", "x"], "recorded rounds say themselves what they are of"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_rounds_are_not_mixed_with_folders(capsys, arguments, tmp_path, extra, reason):
    """What a folder of rounds says itself cannot be said otherwise."""
    code, _, err = run(capsys, *arguments, str(tmp_path / "bundle"), *extra)

    assert code == 2
    assert reason in " ".join(err.replace("│", " ").split())


def test_neither_folders_nor_rounds_is_refused(capsys, tmp_path):
    """One of both has to be given."""
    code, _, err = run(capsys, "consortium", "import", "--base", "path:x", "--out", str(tmp_path / "bundle"))

    assert code == 2
    assert "give the folder of each client" in " ".join(err.replace("│", " ").split())


def test_rounds_that_were_altered_end_in_one_line(capsys, place, arguments, tmp_path):
    """Exit code 1, the file and what is wrong with it."""
    words = [word if word != str(place / "rounds") else str(tmp_path) for word in arguments]
    code, _, err = run(capsys, *words, str(tmp_path / "bundle"))

    assert code == 1
    assert 1 == len(err.splitlines())
    assert "rounds.json" in err
