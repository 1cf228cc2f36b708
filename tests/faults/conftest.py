"""Fixtures: the databases of the books' own tests, a server to be killed, and the program that lives come from."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from rewards.ledger.ledger import Ledger
from tests.faults.lives import started
from tests.faults.servers import Server
from tests.rewards.conftest import postgresql_url, prepared_database, prepared_file, sqlite_url, url
from tests.rewards.receipts import MEMBERS

__all__ = ["postgresql_url", "prepared_database", "prepared_file", "sqlite_url", "url"]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with a prepared ledger in its first database, and commits that are durable."""
    with tempfile.TemporaryDirectory(prefix="protoken-pg-") as folder:
        Path(folder).chmod(0o755)  # the server runs as a user of its own
        server = Server(Path(folder) / "data")
        Ledger.prepare(server.url)
        ledger = Ledger(server.url)
        ledger.register("demo", MEMBERS)
        ledger.close()
        yield server
        server.close()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Popen[str]"]:
    """The program that lives are forked from."""
    with started(tmp_path_factory.mktemp("model")) as program:
        yield program
