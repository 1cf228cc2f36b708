"""A disk without room for the ledger: the error says so, nothing is half booked, and it goes on when there is room."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from deployment.replica.booking.booking_queue import BookingQueue
from deployment.spool.records import record_of
from deployment.spool.spool import Spool
from rewards.audit.replay import audit
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from tests.deployment.replica.booking.test_booking_queue import Told
from tests.rewards.receipts import make_receipt
from tests.waiting import until

PAGES = 2**30  # as many as SQLite ever allows


class Disk:
    """Room for as many pages of the ledger's file as the test says; it never takes a page away that is in use."""

    def __init__(self, ledger: Ledger) -> None:
        self.pages = PAGES
        event.listen(ledger.database._writer, "checkout", self._limit)

    def _limit(self, connection: object, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {self.pages}")


@pytest.fixture
def ledger(sqlite_url: str) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    ledger = Ledger(sqlite_url)
    yield ledger
    ledger.close()


@pytest.fixture
def disk(ledger: Ledger) -> Disk:
    """Where that file is."""
    return Disk(ledger)


def test_full_disk_is_named_and_no_receipt_is_half_booked(ledger: Ledger, disk: Disk, sqlite_url: str) -> None:
    """Receipts that do not all fit are refused together, in the words of the disk; with more room they are booked."""
    ledger.append(make_receipt("before"))
    disk.pages = 1
    batch = [make_receipt(f"r{number}") for number in range(100)]
    with pytest.raises(LedgerError, match=r"ledger\.db: .*disk is full"):
        ledger.append_many(batch)

    assert (1, 7) == (ledger.last_sequence(), ledger.tokens())
    assert audit(sqlite_url).difference is None
    disk.pages = PAGES
    assert list(range(2, 102)) == [booked.sequence for booked in ledger.append_many(batch)]
    assert 101 * 7_000_000 == sum(ledger.balances().values())
    assert audit(sqlite_url).difference is None


@pytest.mark.long
def test_responses_end_on_the_spool_while_the_ledgers_disk_is_full(ledger: Ledger, disk: Disk, tmp_path: Path) -> None:
    """Who waits is told in time that it is not booked yet, and all of it is booked once when there is room."""
    spool = Spool(tmp_path / "spool")
    bookings = BookingQueue(ledger, spool, lambda *_: None)
    disk.pages = 1
    callers = []
    for number in range(200):
        receipt, told = make_receipt(f"r{number}"), Told()
        spool.append([record_of(receipt)])
        bookings.book(receipt, told)
        callers.append(told)
    outcomes = [told.outcome() for told in callers]
    waiting = len(bookings)
    disk.pages = PAGES
    until(lambda: len(bookings) == 0)
    bookings.close()
    spool.close()

    assert None in [outcome for outcome, _ in outcomes]
    assert waiting > 0
    assert max(seconds for _, seconds in outcomes) < 30
    assert (200, 200 * 7) == (ledger.last_sequence(), ledger.tokens())
    assert [] == list((tmp_path / "spool").iterdir())


CUT = """
import resource, signal, sys
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from tests.rewards.receipts import make_receipt
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(sys.argv[1])
ledger.append(make_receipt("before"))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
batch = [make_receipt(f"r{number}") for number in range(400)]
try:
    ledger.append_many(batch)
except LedgerError as error:
    print(error)
assert ledger.last_sequence() == 1, "something of the refused batch is there"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert len(ledger.append_many(batch)) == 400
"""


@pytest.mark.parametrize("more_bytes", [5_000, 100_001, 300_007])
def test_write_that_the_system_cuts_leaves_no_receipt(sqlite_url: str, more_bytes: int) -> None:
    """Where the system stops a commit in the middle of a write nothing of it is there, and the next one is whole."""
    size = Path(sqlite_url.removeprefix("sqlite:///")).stat().st_size
    limit = str(more_bytes if more_bytes > size else size + more_bytes)
    ran = subprocess.run([sys.executable, "-c", CUT, sqlite_url, limit], capture_output=True, text=True, check=False)

    assert (0, "") == (ran.returncode, ran.stderr)
    assert "ledger.db: disk I/O error" in " ".join(ran.stdout.split())
    ledger = Ledger(sqlite_url)
    assert (401, 401 * 7) == (ledger.last_sequence(), ledger.tokens())
    ledger.close()
    assert audit(sqlite_url).difference is None
