"""`protoken consortium import`: what people read of a client, and of what was trained over another base model."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from attribution.base.references import load_model
from attribution.bundle.bundle import open_bundle
from deployment.replica.bundles.publish import publish_setting
from rewards.ledger.ledger import Ledger
from tests.attribution import consortia
from tests.attribution.importers.recordings import ADAPTER, Recording, adapter_start
from tests.deployment.cli.test_commands import run

ELSEWHERE = "acme/Other-7B"
NAME = "Northern Hospital of Köln"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and an adapter, a checkpoint and rounds over it that say they are of another."""
    folder = tmp_path_factory.mktemp("importing")
    consortia.save_base(consortia.base_model("llama"), folder / "base")
    adapter = get_peft_model(load_model(folder / "base"), LoraConfig(r=2, target_modules=["q_proj"]))
    adapter.peft_config["default"].base_model_name_or_path = ELSEWHERE
    adapter.save_pretrained(folder / "adapter", save_embedding_layers=False)
    shutil.copytree(folder / "base", folder / "checkpoint")
    settings = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    (folder / "checkpoint" / "config.json").write_text(json.dumps(settings | {"_name_or_path": ELSEWHERE}))
    told = ADAPTER | {"base_model_name_or_path": ELSEWHERE}
    recording = Recording(
        folder / "rounds", ("north", "south"), adapter_start(load_model(folder / "base")), adapter=told
    )
    recording.run({"north": 3, "south": 1})
    return folder


Import = Callable[..., tuple[int, str, str]]


@pytest.fixture
def take(capsys: pytest.CaptureFixture[str], place: Path, tmp_path: Path) -> Import:
    """The command over that base, for its further words."""

    def take(*words: str) -> tuple[int, str, str]:
        filled = [word.replace("PLACE", str(place)) for word in words]
        return run(
            capsys, "consortium", "import", "--base", f"path:{place}/base", "--out", str(tmp_path / "bundle"), *filled
        )

    return take


@pytest.mark.parametrize(
    "words",
    [
        ("--client", "north=PLACE/adapter"),
        ("--full", "--client", "north=PLACE/checkpoint"),
        ("--rounds", "PLACE/rounds", "--unsigned"),
    ],
    ids=["adapter", "checkpoint", "rounds"],
)
def test_what_is_of_another_base_is_told_with_both_names(take: Import, place: Path, words: tuple[str, ...]) -> None:
    """Whatever is imported: a line of warning names the base that it says, and the one that it is merged into."""
    code, _out, err = take(*words)
    (warning,) = [line for line in err.splitlines() if ELSEWHERE in line]

    assert 0 == code
    assert warning.startswith("warning: ")
    assert f"'path:{place}/base'" in warning


def test_a_client_is_called_by_its_name(take: Import, tmp_path: Path) -> None:
    """`show` and the ledger, and so console, statements and all that reads them, have the name; without one, the id."""
    adapters = ("--client", "north=PLACE/adapter:3", "--client", "south=PLACE/adapter")
    code, shown, _err = take(*adapters, "--name", f"north={NAME}")
    Ledger.prepare(f"sqlite:///{tmp_path}/ledger.db")
    with closing(Ledger(f"sqlite:///{tmp_path}/ledger.db")) as ledger:
        publish_setting(ledger, open_bundle(tmp_path / "bundle"))
        registered = ledger.clients()

    assert (0, True) == (code, NAME in shown)
    assert {"consortium": {"north": NAME, "south": "south"}} == registered


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["west=West"], "no --client 'west' to be named 'West'"),
        (["north=A", "north=B"], "client 'north' is named twice"),
        (["north"], "'north' is not ID=NAME"),
        (["north="], "'north=' is not ID=NAME"),
        (["=North"], "'=North' is not ID=NAME"),
    ],
)
def test_a_name_of_nobody_is_refused(take: Import, tmp_path: Path, names: list[str], reason: str) -> None:
    """A slip of the keys is wrong usage, and no bundle is made."""
    code, _out, err = take("--client", "north=PLACE/adapter", *(word for name in names for word in ("--name", name)))

    assert 2 == code
    assert reason in " ".join(err.replace("│", " ").split())
    assert [] == [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", [" ", "a\nb", "\x1b[31mred", "x" * 201])
def test_a_name_that_nobody_can_read_is_refused(take: Import, tmp_path: Path, name: str) -> None:
    """One line names the client; what is empty, too long or a control is no name."""
    code, _out, err = take("--client", "north=PLACE/adapter", "--name", f"north={name}")

    assert (1, 1) == (code, len(err.splitlines()))
    assert "client 'north': name" in err
    assert [] == [*tmp_path.iterdir()]


def test_rounds_have_names_of_their_own(take: Import) -> None:
    """The recording names its members, and the command does not call them otherwise."""
    code, _out, err = take("--rounds", "PLACE/rounds", "--unsigned", "--name", "north=North")

    assert 2 == code
    assert "--name" in err
