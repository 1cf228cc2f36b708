"""The sealer that a cluster runs: what is booked is sealed and signed, two at once are as good as one."""

import time
from pathlib import Path

import pytest

from deployment.app.sealing import LogSealer
from deployment.errors import StartError, WorkerDiedError
from deployment.health.signing_key import make_signing_key
from deployment.settings import Settings
from rewards.ledger.ledger import Ledger
from rewards.log.checkpoints import latest_checkpoint
from rewards.log.sealer import count_unsealed
from tests.rewards.receipts import MEMBERS, make_receipt


def settings(url: str, folder: Path) -> Settings:
    return Settings(bundle=folder, ledger=url, signing_key=folder / "signing.key", seal_interval_s=0.05)


def test_what_is_booked_is_sealed_by_either_of_two(url: str, ledger: Ledger, tmp_path: Path) -> None:
    """As while an update exchanges them; each leaf is sealed once, which the audit of the log would notice."""
    ledger.register("demo", MEMBERS)
    make_signing_key(url, None, tmp_path / "signing.key", rotate=False)
    both = [LogSealer(settings(url, tmp_path)) for _ in range(2)]
    for number in range(20):
        ledger.append(make_receipt(f"r{number}", 10))
        time.sleep(0.01)
    for sealer in both:
        sealer.check_health()
        sealer.__del__()

    with ledger.database.read() as connection:
        assert (0, 0) == count_unsealed(connection)
        assert latest_checkpoint(connection) is not None


def test_one_whose_thread_ended_is_replaced(url: str, tmp_path: Path) -> None:
    """Serve asks how it is, and is told."""
    make_signing_key(url, None, tmp_path / "signing.key", rotate=False)
    sealer = LogSealer(settings(url, tmp_path))
    sealer._sealer.close()

    with pytest.raises(WorkerDiedError, match="seals the log"):
        sealer.check_health()


def test_without_its_key_there_is_none(url: str, tmp_path: Path) -> None:
    """On a cluster no machine makes a key of its own."""
    with pytest.raises(StartError, match=r"no signing key in .*signing\.key"):
        LogSealer(settings(url, tmp_path))
