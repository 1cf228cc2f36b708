"""A database that goes away amid traffic: responses end on the spool's word, the lag shows, and all is booked after.

PROTOKEN_OUTAGE_S is how long it is away.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from subprocess import Popen
from typing import Any

import pytest

from tests.faults.lives import Life, check, living
from tests.faults.servers import Server
from tests.waiting import until

pytestmark = pytest.mark.slow

OUTAGE_S = float(os.environ.get("PROTOKEN_OUTAGE_S", "8"))
KILLS = 5 * int(os.environ.get("PROTOKEN_KILLS", "1"))
Away = Callable[[], Any]


@pytest.fixture(params=["stopped", "hung", "locked"])
def database(request: pytest.FixtureRequest) -> tuple[str, Away]:
    """A ledger's URL, and what keeps its database away within a `with`."""
    if request.param == "locked":
        url: str = request.getfixturevalue("sqlite_url")
        return url, lambda: locked(url)
    server: Server = request.getfixturevalue("server")
    return server.url, lambda: (stopped if request.param == "stopped" else hung)(server)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Nobody listens."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def hung(server: Server) -> Iterator[None]:
    """Connections stand, and new ones are taken, but there is no answer."""
    server.pause()
    try:
        yield
    finally:
        server.go_on()


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else writes, and does not come to an end."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def wait_for_bookings(life: Life) -> None:
    """Return when a response has ended from now on that was booked within its patience."""
    before = len(life)
    until(lambda: any(line.get("booked") for line in life.lines()[before:]))


def lags(lines: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """How many receipts were told to wait, and for how many seconds the oldest had."""
    return [(line["receipts"], line["lag"]) for line in lines if "lag" in line]


def largest(told: list[tuple[int, float]]) -> tuple[int, float]:
    """The most receipts and the most seconds; nothing was told of none."""
    return max((receipts for receipts, _ in told), default=0), max((seconds for _, seconds in told), default=0.0)


def test_responses_end_while_the_database_is_away(
    program: "Popen[str]", database: tuple[str, Away], tmp_path: Path
) -> None:
    """Whether nobody listens, nobody answers or somebody holds the lock: traffic goes on, and nothing is lost by it.

    The lag tells of ever more receipts and seconds, and of none once all is booked.
    """
    url, away = database
    with living(program, tmp_path, url) as lives:
        life = lives.begin()
        wait_for_bookings(life)
        since = time.monotonic()
        with away():
            before = len(life)
            time.sleep(OUTAGE_S)
            until(lambda: sum(line.get("booked") is False for line in life.lines()[before:]) > OUTAGE_S)
            until(lambda: largest(lags(life.lines()[before:]))[1] > 0.75 * (time.monotonic() - since))
            during, away_s = life.lines()[before:], time.monotonic() - since
            before = len(life)
        wait_for_bookings(life)
        until(lambda: (0, 0) in lags(life.lines()[before:]))
        life.stop()
        lives.settle()
        check(lives)

    ended = [line["booked"] for line in during if "ended" in line]
    told = lags(during)
    waiting, lag = largest(told)
    before_half, lag_before_half = largest(told[: len(told) // 2])
    assert waiting >= ended.count(False)
    assert lag < away_s + 2
    assert before_half < waiting and lag_before_half < lag, "it did not grow"


def test_worker_that_dies_while_the_database_is_away_loses_nothing(
    program: "Popen[str]", server: Server, tmp_path: Path
) -> None:
    """What only its spool held is booked by whoever comes after, once the database is back."""
    with living(program, tmp_path, server.url) as lives:
        life = lives.begin()
        wait_for_bookings(life)
        with stopped(server):
            before = len(life)
            until(lambda: sum(line.get("booked") is False for line in life.lines()[before:]) > 20)
            life.kill()
        lives.settle()
        check(lives)

    assert 1 == lives.kills


def test_dying_connections_lose_and_double_nothing(program: "Popen[str]", server: Server, tmp_path: Path) -> None:
    """A server whose connections die in the middle of commits, again and again, is written to as before."""
    killed = 0
    with living(program, tmp_path, server.url) as lives:
        chance = Random(lives.seed)
        life = lives.begin()
        for _ in range(KILLS):
            wait_for_bookings(life)
            time.sleep(chance.uniform(0, 0.1))
            server.kill_connection(chance)
            killed += 1
        wait_for_bookings(life)
        life.stop()
        lives.settle()
        found = check(lives)

    assert KILLS == killed
    assert found.ended > KILLS
