"""Fixtures: the small model of the worker's tests with its books, and an engine that speaks the protocol."""

from collections.abc import Iterator

import pytest

from attribution.model import FederatedModel
from deployment.replica.engines import connection
from deployment.replica.engines.connection import Connection
from deployment.replica.engines.remote_batch import RemoteBatch
from tests.deployment.replica.engines.fake_engine import NAME, FakeEngine, engine_at_work


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """An engine; who fails to reach it tries again soon."""
    monkeypatch.setattr(connection, "PAUSES_S", (0.01, 0.02))
    with engine_at_work() as engine:
        yield engine


@pytest.fixture
def line(engine: FakeEngine) -> Iterator[Connection]:
    """A connection to it."""
    line = Connection(engine.url, "sk-very-secret")
    yield line
    line.close()


@pytest.fixture
def batch(model: FederatedModel, line: Connection) -> RemoteBatch:
    """Rows of it."""
    return RemoteBatch(model, line, NAME)
