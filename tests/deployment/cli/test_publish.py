"""`protoken consortium publish | rollback | rounds`: what an operator types, and is told."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from attribution.bundle.bundle import open_bundle
from deployment.replica.bundles.publish import publish_setting
from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, lora_update, write_consortium
from tests.deployment.cli.test_commands import run


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> tuple[Path, Path]:
    """Two rounds of one consortium."""
    base = base_model("llama")
    folders = []
    for number in (1, 2):
        updates = {name: lora_update(base, 10 * number + n, first_block=2) for n, name in enumerate(("clinic", "bank"))}
        folders.append(write_consortium(tmp_path_factory.mktemp("round"), base, updates, number=number))
    return folders[0], folders[1]


@pytest.fixture
def ledger(tmp_path, bundles) -> str:
    """A ledger of a service that is set to serve the first."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    ledger = Ledger(url)
    publish_setting(ledger, open_bundle(bundles[0]))
    ledger.close()
    return url


def test_a_round_is_published_listed_and_taken_back(capsys, bundles, ledger):
    """Each command says what stands now, and what happens next."""
    sha = open_bundle(bundles[1]).manifest.global_.sha256
    published = run(capsys, "consortium", "publish", str(bundles[1]), "--ledger", ledger)
    again = run(capsys, "consortium", "publish", str(bundles[1]), "--ledger", ledger)
    back = run(capsys, "consortium", "rollback", "test", "--ledger", ledger)
    listed = run(capsys, "consortium", "rounds", "test", "--ledger", ledger, "--json")

    assert [0, 0, 0, 0] == [each[0] for each in (published, again, back, listed)]
    assert f"published: round 2 ({sha[:8]}) of test, from {bundles[1]}" in published[1]
    assert "`protoken consortium rollback test` goes back" in published[1]
    assert "already" in again[1]
    assert f"taken back: round 2 ({sha[:8]}); published is round 1" in back[1]
    assert "goes back" not in back[1], "there is nothing behind it"
    assert [(1, "service", False, str(bundles[0])), (2, "command line", True, str(bundles[1]))] == [
        (each["round"], each["actor"], each["is_withdrawn"], each["bundle"]) for each in json.loads(listed[1])
    ]


def test_rounds_are_a_table(capsys, bundles, ledger):
    """Which one serves is said beside it."""
    run(capsys, "consortium", "publish", str(bundles[1]), "--ledger", ledger)
    code, out, _ = run(capsys, "consortium", "rounds", "test", "--ledger", ledger)

    assert 0 == code
    assert ["served"] == [word for line in out.splitlines() for word in line.split() if word == "served"]


def test_a_bundle_that_does_not_add_up_is_not_published(capsys, tmp_path, ledger):
    """Although its manifest names the hash of what is there: the rest of the global model is in nobody's update."""
    base = base_model("llama")
    folder = write_consortium(tmp_path / "odd", base, {"clinic": lora_update(base, 5, first_block=2)})
    manifest = json.loads((folder / "consortium.json").read_text())
    update = folder / manifest["clients"][0]["path"]
    file = update if update.is_file() else next(update.glob("*.safetensors"))
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    code, _, err = run(capsys, "consortium", "publish", str(folder), "--ledger", ledger)

    assert 1 == code
    assert str(folder) in err
    assert [1] == [each["round"] for each in _rounds(capsys, ledger)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["publish", "nowhere"], "nowhere"),
        (["rollback", "test"], "nothing to go back to"),
        (["rollback", "nobody"], "nothing is published for consortium 'nobody'"),
        (["rounds", "nobody"], "nothing was published for consortium 'nobody'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(capsys, ledger, arguments, reason):
    """With exit code 1, and nothing is written."""
    code, _, err = run(capsys, "consortium", *arguments, "--ledger", ledger)

    assert (1, 1) == (code, len(err.splitlines()))
    assert reason in err


def _rounds(capsys, ledger) -> list:
    return json.loads(run(capsys, "consortium", "rounds", "test", "--ledger", ledger, "--json")[1])
