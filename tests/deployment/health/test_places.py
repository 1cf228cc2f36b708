"""What a service keeps beside its ledger: whose spool it is, and a signing key that is made once."""

import shutil
from pathlib import Path

import pytest

from deployment.errors import StartError
from deployment.health.places import ledger_folder
from rewards.ledger.ledger import Ledger


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
