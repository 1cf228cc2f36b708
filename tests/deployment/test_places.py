"""What a service keeps beside its ledger: whose spool it is, and a signing key that is made once."""

import shutil
from pathlib import Path

import pytest

from deployment.errors import StartError
from deployment.places import ledger_folder, log_origin, signing_key
from rewards import Ledger
from rewards.sealing import seal


def test_spool_belongs_to_the_ledger_and_not_to_its_address(url: str, ledger: Ledger, tmp_path: Path) -> None:
    """A ledger that moves keeps its spool; another ledger gets another one, and an empty one none."""
    ledger.close()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "moved.db")
    moved = Ledger(f"sqlite:///{tmp_path}/moved.db")
    Ledger.prepare(f"sqlite:///{tmp_path}/other.db")
    other = Ledger(f"sqlite:///{tmp_path}/other.db")

    with pytest.raises(StartError, match="empty"):
        ledger_folder(tmp_path, other)
    other.register("demo", {"bank": "A bank"})
    folders = [ledger_folder(tmp_path, each) for each in (Ledger(url), moved, other)]
    assert folders[0] == folders[1] != folders[2]
    assert {tmp_path} == {folder.parent for folder in folders}


def test_signing_key_is_made_once_for_its_owner_alone(ledger: Ledger, tmp_path: Path) -> None:
    """The first start makes the key, later ones find it; the log keeps the name of its first seal."""
    path = tmp_path / "deep" / "signing.key"
    first, again = signing_key(path, "demo/ledger"), signing_key(path, "another")

    assert (first.public, 0o600) == (again.public, path.stat().st_mode & 0o777)
    assert "demo/ledger" == log_origin(ledger, first)
    seal(ledger, first, "demo/ledger")
    assert "demo/ledger" == log_origin(ledger, signing_key(tmp_path / "second.key", "new"))


def test_folder_of_the_key_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where the folder should be is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="file"):
        signing_key(tmp_path / "file" / "signing.key", "demo")
