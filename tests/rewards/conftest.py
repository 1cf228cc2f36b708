"""Fixtures: a prepared, empty ledger on SQLite and on PostgreSQL, with the clients of the test receipts registered."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from rewards import Ledger
from tests.rewards.receipts import MEMBERS


def new_database(postgresql: str) -> str:
    """The URL of a new, empty database on the server."""
    name = f"ledger_{uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgresql.replace("/postgres?", f"/{name}?")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a prepared, empty ledger on SQLite."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    _prepare(url)
    return url


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """The URL of a prepared, empty ledger on PostgreSQL."""
    url = new_database(postgresql)
    _prepare(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a prepared, empty ledger, on each database in turn."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An empty ledger, open."""
    ledger = Ledger(url)
    yield ledger
    ledger.close()


def _prepare(url: str) -> None:
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    ledger.close()
