"""Fixtures: a small model that two clients trained, and the ledger, spool and observer of a worker over it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attribution.model import FederatedModel
from deployment.replica.worker import Worker
from deployment.spool.spool import Spool
from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, lora_update, write_consortium
from tests.deployment.replica.booking.test_booking_queue import MovingLedger
from tests.deployment.replica.test_worker import MEMBERS, Notes, SmallDisk, working


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FederatedModel:
    """A random four-block Llama that two clients trained; context 128, and it never ends by itself."""
    torch.set_num_threads(1)
    base = base_model("llama")
    updates = {name: lora_update(base, seed, first_block=2) for seed, name in enumerate(("clinic", "bank"))}
    model = FederatedModel.load(write_consortium(tmp_path_factory.mktemp("consortium"), base, updates))
    model.end_token_ids = set()
    return model


@pytest.fixture
def notes() -> Notes:
    """What the worker told."""
    return Notes()


@pytest.fixture
def ledger(tmp_path: Path, model: FederatedModel) -> Iterator[MovingLedger]:
    """An empty ledger that knows the model's clients, there for now."""
    url = f"sqlite:///{tmp_path}/worker.db"
    Ledger.prepare(url)
    ledger = MovingLedger(url)
    ledger.register(model.name, MEMBERS)
    yield ledger
    ledger.close()


@pytest.fixture
def spool(tmp_path: Path) -> SmallDisk:
    """An empty spool with room."""
    return SmallDisk(tmp_path / "spool")


@pytest.fixture
def worker(model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes) -> Iterator[Worker]:
    """A worker over that model."""
    with working(model, ledger, spool, notes) as worker:
        yield worker
