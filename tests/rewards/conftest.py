"""Fixtures: a prepared, empty ledger on SQLite and on PostgreSQL, with the clients of the test receipts registered."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from rewards.ledger.ledger import Ledger
from tests.rewards.receipts import MEMBERS


def new_database(postgresql: str, template: str = "template1") -> str:
    """The URL of a new database on the server: an empty one, or a copy of another."""
    name = f"ledger_{uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        # By the file: for one that is small and soon dropped, half of what a copy through the log takes.
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    return postgresql.replace("/postgres?", f"/{name}?")


def drop_database(postgresql: str, url: str) -> None:
    """Drop a database whoever still holds it open: hundreds would fill the disk, and be deleted for minutes."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")


@pytest.fixture(scope="session")
def prepared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared, empty ledger on SQLite, to be copied."""
    path = tmp_path_factory.mktemp("prepared") / "ledger.db"
    _prepare(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def prepared_database(postgresql: str) -> str:
    """The name of a prepared, empty ledger on PostgreSQL, to be copied."""
    url = new_database(postgresql)
    _prepare(url)
    return make_url(url).database or ""


@pytest.fixture
def sqlite_url(tmp_path: Path, prepared_file: Path) -> str:
    """The URL of a prepared, empty ledger on SQLite."""
    shutil.copy(prepared_file, tmp_path / "ledger.db")
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def postgresql_url(postgresql: str, prepared_database: str) -> Iterator[str]:
    """The URL of a prepared, empty ledger on PostgreSQL, which is gone after the test."""
    url = new_database(postgresql, prepared_database)
    yield url
    drop_database(postgresql, url)


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
