"""The composition root where it refuses to start: at once, by name, and before Ray is there."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve
from ray.exceptions import RayActorError

from attribution.errors import BundleError
from deployment.app.launch import start_service
from deployment.cluster import machine
from deployment.errors import StartError
from deployment.health.places import require_folder
from deployment.settings import Settings
from rewards.errors import RewardsError
from rewards.signing.keys import SigningKey
from tests.attribution.consortia import base_model, updates, write_consortium
from tests.end_to_end.service import free_port


@pytest.mark.parametrize("name", ["port", "metrics_port", "replica_metrics_port"])
def test_taken_port_is_named(tmp_path: Path, name: str) -> None:
    """A port that somebody listens on is refused, and no ledger is made."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"port": other.getsockname()[1], "metrics_port": 0}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(bundle=tmp_path, ledger=f"sqlite:///{tmp_path}/ledger.db", **(ports | {name: port}))
        with pytest.raises(StartError, match=f"127.0.0.1:{port}"), start_service(settings):
            pytest.fail("the service started")

    assert not ray.is_initialized()
    assert [] == list(tmp_path.iterdir())


def test_missing_bundle_is_named(tmp_path: Path) -> None:
    """A bundle that is not there is refused by this process, not by a replica that is started again and again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    settings = Settings(bundle=tmp_path / "absent", ledger=ledger, port=port, replica_metrics_port=0)

    with pytest.raises(BundleError, match="absent"), start_service(settings):
        pytest.fail("the service started")
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small consortium."""
    model = base_model("llama")
    return write_consortium(tmp_path_factory.mktemp("bundle"), model, updates(model))


def refusal(tmp_path: Path, bundle: Path, **wrong: Any) -> str:
    """The one line with which the service does not start."""
    places = {name: tmp_path / name for name in ("spool", "signing_key")}
    ports = {"port": free_port(), "metrics_port": 0, "replica_metrics_port": 0}
    settings = Settings(**{"bundle": bundle, "ledger": f"sqlite:///{tmp_path}/ledger.db", **places, **ports, **wrong})
    with pytest.raises((StartError, RewardsError)) as raised, start_service(settings):
        pytest.fail("the service started")
    assert not ray.is_initialized()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("setting", ["spool", "texts"])
@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file", "File exists"),  # a file in the folder's place
        ("file/below", "Not a directory"),
        ("/proc/protoken", "No such file"),  # a file system that takes no folder, whoever asks
        ("/sys/protoken", "not permitted|Read-only|Permission denied|No such file"),
        (
            "/proc/self",
            "Permission denied|No such file|not permitted",
        ),  # there is a folder, and no file can be made in it
        ("x" * 300, "name too long"),
    ],
)
def test_folder_that_cannot_be_used_is_one_line(
    tmp_path: Path, bundle: Path, setting: str, place: str, why: str
) -> None:
    """A folder in which nothing can be kept is named with its setting and the reason, and no ledger is made."""
    (tmp_path / "file").write_text("")
    message = refusal(tmp_path, bundle, **{setting: tmp_path / place})

    assert re.search(why, message, re.IGNORECASE), message
    assert message.startswith(f"{setting} {tmp_path / place} cannot be used")
    assert f"PROTOKEN_{setting.upper()}" in message
    assert not (tmp_path / "ledger.db").exists()


def test_usable_folder_is_left_as_it_was(tmp_path: Path) -> None:
    """What was tried there is taken away again."""
    require_folder(tmp_path / "new" / "spool", "spool")

    assert [] == list((tmp_path / "new" / "spool").iterdir())


@pytest.mark.parametrize("setting", ["policy", "signing_key", "pepper_file"])
@pytest.mark.parametrize("place", ["", "file/below"])
def test_file_that_cannot_be_read_is_one_line(tmp_path: Path, bundle: Path, setting: str, place: str) -> None:
    """A folder in the place of a file, or a path through a file, is named."""
    (tmp_path / "file").write_text("")

    assert str(tmp_path / place) in refusal(tmp_path, bundle, **{setting: tmp_path / place}) or place


@pytest.mark.parametrize("place", ["", "file/ledger.db"])
def test_ledger_that_cannot_be_made_is_one_line(tmp_path: Path, bundle: Path, place: str) -> None:
    """A folder in the place of the ledger, or a path through a file, is named."""
    (tmp_path / "file").write_text("")

    assert str(tmp_path) in refusal(tmp_path, bundle, ledger=f"sqlite:///{tmp_path / place}")


def test_one_port_for_two_is_refused(tmp_path: Path, bundle: Path) -> None:
    """Two parts cannot listen on the same port, which is said before either does."""
    port = free_port()

    assert f"both {port}" in refusal(tmp_path, bundle, port=port, replica_metrics_port=port)


def test_whole_differences_that_memory_does_not_hold_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a ledger is made: every score would read them all from the disk."""
    model = base_model("llama")
    bundle = write_consortium(tmp_path, model, updates(model, kind="everything"))
    monkeypatch.setattr(machine, "_memory_bytes", lambda: 100_000)

    assert "3 clients are whole differences" in refusal(tmp_path, bundle)
    assert not (tmp_path / "ledger.db").exists()


def test_a_start_that_ray_gives_up_is_one_line(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve ended its own proxy, as on a machine that is too busy: what happened is told, and what to do."""

    def gives_up(**_options: object) -> None:
        raise RayActorError(error_msg="The actor died.\n\tclass_name: ProxyActor")

    monkeypatch.setattr(ray, "init", lambda **_options: None)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(serve, "start", gives_up)
    message = refusal(tmp_path, bundle)

    assert "did not come up: The actor died. class_name: ProxyActor" in message
    assert "where this machine is busy, start it again when it is not" in message


def test_a_start_that_ray_itself_gives_up_is_one_line(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own processes took longer than it waits for them, of which it says so by the most general of errors."""

    def gives_up(**_options: object) -> None:
        raise Exception("The current node timed out during startup.")  # noqa: TRY002 - as Ray does

    monkeypatch.setattr(ray, "init", gives_up)
    message = refusal(tmp_path, bundle)

    assert "Ray did not come up: The current node timed out during startup.; where this machine is busy" in message


def test_a_lost_ledger_is_not_made_anew(tmp_path: Path, bundle: Path) -> None:
    """Where the key is there and the ledger is not, the service says so, and makes no file in its place."""
    SigningKey.generate("demo/ledger").save(tmp_path / "signing_key")

    assert "bring that back" in refusal(tmp_path, bundle)
    assert not (tmp_path / "ledger.db").exists()
