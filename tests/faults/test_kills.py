"""SIGKILL at random moments under load: of what books, of the writer alone, and of PostgreSQL. Nothing lost or doubled.

PROTOKEN_KILLS multiplies the kills for a long run. The real replica with its model is killed in `tests/end_to_end`.
"""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from rewards import Ledger
from tests.faults.killing import PROGRESS_TOKENS, Seen, Victim, check_books, kill_again_and_again
from tests.faults.servers import Server

pytestmark = pytest.mark.slow

TIMES = int(os.environ.get("PROTOKEN_KILLS", "1"))
OUTAGE_S = float(os.environ.get("PROTOKEN_OUTAGE_S", "5"))
SEED = int(os.environ.get("PROTOKEN_SEED", "0")) or random.SystemRandom().randrange(2**32)
REPLICA_KILLS, WRITER_KILLS, SERVER_KILLS = 14 * TIMES, 4 * TIMES, 10 * TIMES
"""On each database 14 + 2 and 4 + 2, and 10 of PostgreSQL: 54 in all."""


def test_a_replica_that_is_killed_loses_nothing(url: str, tmp_path: Path) -> None:
    """Each response whose end was shown is booked once and exactly; what was cut is credited to within 16 tokens."""
    spool = tmp_path / "spool"
    seen = kill_again_and_again("replica", url, spool, REPLICA_KILLS, SEED)
    Victim("drain", url, spool, "drain", 0, seen).finish()
    cut = [tokens for response_id, tokens in seen.shown.items() if response_id not in seen.ended]

    assert len(seen.ended) > REPLICA_KILLS
    assert max(cut) > PROGRESS_TOKENS, "no stream of any length was cut"
    check_books(url, seen)


def test_a_writer_that_is_killed_keeps_its_promises(url: str, tmp_path: Path) -> None:
    """What the group commit promised to eight threads is in the ledger, however many commits were cut."""
    seen = kill_again_and_again("writer", url, tmp_path / "spool", WRITER_KILLS, SEED)

    assert len(seen.ended) > 8 * WRITER_KILLS
    check_books(url, seen)


def test_postgresql_that_is_killed_loses_nothing(server: Server, tmp_path: Path) -> None:
    """Responses go on while it is down, and the process books what waits as soon as it is back, each once."""
    seen, numbers = Seen(), random.Random(SEED)
    print(f"PostgreSQL: {SERVER_KILLS} kills, seed {SEED}")
    victim = Victim("replica", server.url, tmp_path / "spool", "steady", SEED, seen)
    victim.wait_until_busy()
    for _ in range(SERVER_KILLS):
        threading.Event().wait(numbers.uniform(0.1, 0.6))
        server.kill()
        server.start()
        _wait_for_bookings(server.url)  # so that each kill meets a server that is written to
    victim.kill()
    Victim("drain", server.url, tmp_path / "spool", "drain", 0, seen).finish()

    check_books(server.url, seen)


def test_a_database_that_is_away_is_waited_for(server: Server, tmp_path: Path) -> None:
    """Responses end on the word of the spool, the lag tells how many wait and for how long, and then all is booked."""
    seen = Seen()
    victim = Victim("replica", server.url, tmp_path / "spool", "patient", SEED, seen)
    victim.wait_until_busy()
    server.kill()
    before = len(seen.ended)
    threading.Event().wait(OUTAGE_S)
    ended = len(seen.ended) - before
    most, longest = (max(values) for values in zip(*seen.lags, strict=True))
    server.start()
    _until(lambda: seen.lags[-1][0] <= 8)
    victim.kill()
    Victim("drain", server.url, tmp_path / "spool", "drain", 0, seen).finish()

    assert ended > OUTAGE_S
    assert most >= ended
    assert longest > OUTAGE_S - 2
    check_books(server.url, seen)


def _wait_for_bookings(url: str) -> None:
    """Return when somebody has booked something from now on."""
    ledger = Ledger(url)
    before = ledger.last_sequence()
    _until(lambda: ledger.last_sequence() > before)
    ledger.close()


def _until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)
