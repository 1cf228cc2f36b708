"""SIGKILL at random moments under load: of what books, of the writer alone, and of PostgreSQL. Nothing lost or doubled.

PROTOKEN_KILLS multiplies the kills for a long run. The real replica with its model is killed in `tests/end_to_end`.
"""

import os
import random
import threading
from pathlib import Path

import pytest

from rewards.ledger.ledger import Ledger
from tests.faults.killing import PROGRESS_TOKENS, Seen, Victim, check_books, drain, kill_again_and_again
from tests.faults.servers import Server
from tests.waiting import until

pytestmark = pytest.mark.slow

TIMES = int(os.environ.get("PROTOKEN_KILLS", "1"))
SEED = int(os.environ.get("PROTOKEN_SEED", "0")) or random.SystemRandom().randrange(2**32)
REPLICA_KILLS, WRITER_KILLS, SERVER_KILLS = 16 * TIMES, 10 * TIMES, 10 * TIMES
"""The first two on each of two databases: 62 in all."""


def test_a_replica_that_is_killed_loses_nothing(url: str, tmp_path: Path) -> None:
    """Each response whose end was shown is booked once and exactly; what was cut is credited to within 16 tokens."""
    spool = tmp_path / "spool"
    seen = kill_again_and_again("replica", url, spool, REPLICA_KILLS, SEED)
    drain(url, spool, seen)
    cut = [tokens for response_id, tokens in seen.shown.items() if response_id not in seen.ended]

    assert REPLICA_KILLS == seen.kills
    assert len(seen.ended) > REPLICA_KILLS
    assert max(cut) > PROGRESS_TOKENS, "no stream of any length was cut"
    check_books(url, seen)


def test_a_writer_that_is_killed_keeps_its_promises(url: str, tmp_path: Path) -> None:
    """What the group commit promised to eight threads is in the ledger, however many commits were cut."""
    seen = kill_again_and_again("writer", url, tmp_path / "spool", WRITER_KILLS, SEED)

    assert WRITER_KILLS == seen.kills
    assert len(seen.ended) > 8 * WRITER_KILLS
    check_books(url, seen)


def test_postgresql_that_is_killed_loses_nothing(server: Server, tmp_path: Path) -> None:
    """Responses go on while it is down, and the process books what waits as soon as it is back, each once."""
    seen, numbers, killed = Seen(), random.Random(SEED), 0
    print(f"PostgreSQL: {SERVER_KILLS} kills, seed {SEED}")
    with Victim("replica", server.url, tmp_path / "spool", "steady", SEED, seen) as victim:
        victim.wait_until_busy()
        for _ in range(SERVER_KILLS):
            threading.Event().wait(numbers.uniform(0.1, 0.6))
            server.kill()
            killed += 1
            server.start()
            _wait_for_bookings(server.url)  # so that each kill meets a server that is written to
        victim.kill()
    drain(server.url, tmp_path / "spool", seen)

    assert SERVER_KILLS == killed
    assert 1 == seen.kills, "the process that booked did not live through it"
    check_books(server.url, seen)


def _wait_for_bookings(url: str) -> None:
    """Return when somebody has booked something from now on."""
    ledger = Ledger(url)
    before = ledger.last_sequence()
    until(lambda: ledger.last_sequence() > before)
    ledger.close()
