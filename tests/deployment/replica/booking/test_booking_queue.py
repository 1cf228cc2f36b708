"""The booking queue and the takeover of dead processes' spools, over a real ledger that goes away and comes back."""

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployment.replica.booking import booking_queue
from deployment.replica.booking.booking_queue import BOOKING_PATIENCE_S, BookingQueue, Outcome
from deployment.replica.booking.recovery import Recovery
from deployment.replica.messages import ModelCard
from deployment.spool.records import ProgressRecord, receipt_from, record_of, unscored_receipt
from deployment.spool.spool import Spool
from rewards.errors import CreditError, LedgerError, LedgerRefusedError, ReceiptConflictError
from rewards.ledger.ledger import Booking, Ledger
from rewards.sampled_credit.rule import SamplingRule
from tests.rewards.receipts import MEMBERS, make_receipt
from tests.waiting import PATIENCE_S, until

CARD = ModelCard("demo", "a" * 64, ("bank", "clinic", "rider"), 128)
PROGRESS = ProgressRecord(
    "cut", "0123456789ab", 1_700_000_000_000_000, "demo", "a" * 64, (5, 6, 7), tuple(range(48)), 0.5, 900_000
)


class MovingLedger(Ledger):
    """A ledger whose database can be away, or hang until it answers."""

    def __init__(self, url: str) -> None:
        self.away = False
        self.attempts = 0
        self.answers = threading.Event()
        self.answers.set()
        self.refuses = ""  # a response id, by a rule of the schema
        super().__init__(url)

    def append_many(self, receipts: Sequence[Any]) -> Any:
        """Book, or fail as a database does that does not answer."""
        self.attempts += 1
        assert self.answers.wait(PATIENCE_S)
        self._require()
        return super().append_many(receipts)

    def _append(self, receipts: Sequence[Any]) -> Any:
        if self.refuses in [receipt.response_id for receipt in receipts]:
            raise LedgerRefusedError(f"receipt of {self.refuses} is not of this hour")
        return super()._append(receipts)

    def receipt(self, response_id: str) -> Any:
        """Read, or fail likewise."""
        self._require()
        return super().receipt(response_id)

    def _require(self) -> None:
        if self.away:
            raise LedgerError("the database does not answer")


class Told:
    """Who waits for a booking: what it was told, and when."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.outcomes: queue.Queue[tuple[Outcome, float]] = queue.Queue()

    def __call__(self, outcome: Outcome) -> None:
        self.outcomes.put((outcome, time.monotonic() - self.since))

    def outcome(self) -> tuple[Outcome, float]:
        """What was told first, waited for, and after how many seconds."""
        return self.outcomes.get(timeout=PATIENCE_S)


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[MovingLedger]:
    """An empty ledger with the test's clients, there for now."""
    url = f"sqlite:///{tmp_path}/moving.db"
    Ledger.prepare(url)
    ledger = MovingLedger(url)
    ledger.register("demo", MEMBERS)
    yield ledger
    ledger.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool."""
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


@pytest.fixture
def lags() -> list[tuple[int, float]]:
    """What the booking queue said of its lag."""
    return []


@pytest.fixture
def bookings(moving: MovingLedger, spool: Spool, lags: list[tuple[int, float]]) -> Iterator[BookingQueue]:
    """A booking queue between them."""
    bookings = BookingQueue(moving, spool, lambda entries, seconds: lags.append((entries, seconds)))
    yield bookings
    bookings.close()


def test_spooled_receipt_is_booked_told_and_forgotten(
    bookings: BookingQueue, moving: MovingLedger, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is there a receipt is booked at once, its caller is told, and the spool lets go of it."""
    monkeypatch.setattr(booking_queue, "BOOKING_PATIENCE_S", 60.0)
    receipt, told = make_receipt("one"), Told()
    spool.append([record_of(receipt)])
    bookings.book(receipt, told)
    outcome, _ = told.outcome()

    assert isinstance(outcome, Booking)
    assert ("one", receipt.payload_sha256) == (outcome.response_id, outcome.payload_sha256)
    assert ([], 0, 1) == (spool.live_records(), len(bookings), moving.attempts)
    assert moving.receipt("one") is not None


@pytest.mark.long
def test_a_receipt_that_the_database_refuses_waits_alone(
    bookings: BookingQueue, moving: MovingLedger, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those booked with it and after it are booked at once; it stays in the spool, and is booked once it is taken."""
    moving.refuses = "ahead"
    receipts = [make_receipt(name) for name in ("s", "ahead", "t", "later")]
    spool.append([record_of(receipt) for receipt in receipts])
    waiting = Told()
    for receipt in receipts[:3]:
        bookings.book(receipt, waiting if receipt.response_id == "ahead" else None)
    assert waiting.outcome()[0] is None  # told after the booking queue's patience that it is on its way
    monkeypatch.setattr(booking_queue, "BOOKING_PATIENCE_S", 60.0)
    told = Told()
    bookings.book(receipts[3], told)
    outcome, _ = told.outcome()

    assert isinstance(outcome, Booking)
    assert ["ahead"] == [record["id"] for record in spool.live_records()]
    moving.refuses = ""
    until(lambda: moving.is_booked("ahead"))
    until(lambda: not spool.live_records())


@pytest.mark.long
def test_serving_goes_on_while_the_database_is_away(
    bookings: BookingQueue, moving: MovingLedger, spool: Spool, lags: list[tuple[int, float]]
) -> None:
    """Who waits is told after a second that it is not booked yet; once the database is back all is booked, once."""
    moving.away = True
    receipts = [make_receipt(f"r{number}") for number in range(300)]
    spool.append([record_of(receipt) for receipt in receipts])
    callers = [Told() for _ in receipts]
    for receipt, told in zip(receipts, callers, strict=True):
        bookings.book(receipt, told)
    told_of = [told.outcome() for told in callers]

    assert [None] * 300 == [outcome for outcome, _ in told_of]
    assert all(BOOKING_PATIENCE_S <= seconds < 30 for _, seconds in told_of)
    assert 300 == len(bookings) == len(spool)
    until(lambda: lags[-1][0] == 300 and lags[-1][1] > 1)
    assert moving.attempts < 20, "the database was not left in peace"

    moving.away = False
    until(lambda: len(bookings) == 0)
    assert (300, []) == (moving.last_sequence(), spool.live_records())
    until(lambda: lags[-1] == (0, 0.0))
    assert all(told.outcomes.empty() for told in callers), "somebody was told twice"


@pytest.mark.long
def test_return_of_the_database_is_used_at_once(bookings: BookingQueue, moving: MovingLedger, spool: Spool) -> None:
    """One success brings everybody who waits, however long their next attempt was put off."""
    moving.away = True
    for number in range(5):
        bookings.book(make_receipt(f"r{number}"))
    time.sleep(3)  # the next attempts are seconds apart now
    moving.away = False
    until(lambda: moving.last_sequence() == 5, 6)


@pytest.mark.parametrize("kind", [ReceiptConflictError, CreditError])
def test_receipt_that_the_ledger_refuses_is_set_aside(
    bookings: BookingQueue, moving: MovingLedger, spool: Spool, kind: type[Exception]
) -> None:
    """A response id that is taken, or a client nobody registered: its caller is told why, and the record is kept."""
    moving.append(make_receipt("taken", tokens=3))
    refused = make_receipt("taken") if kind is ReceiptConflictError else make_receipt("other", shares={"stranger": 0.5})
    spool.append([record_of(refused)])
    told = Told()
    bookings.book(refused, told)
    outcome, _ = told.outcome()

    assert kind is type(outcome)
    assert [] == spool.live_records()
    (aside,) = spool.path.parent.glob("refused-*.jsonl")
    assert str(outcome) in aside.read_text()
    assert 3 == moving.tokens()


@pytest.mark.long
def test_receipt_that_stands_nowhere_else_is_given_up_once_told(
    bookings: BookingQueue, moving: MovingLedger, spool: Spool
) -> None:
    """Where disk and database both refuse, a response that was withheld is not credited later; others are."""
    moving.away = True
    told = Told()
    bookings.book(make_receipt("withheld"), told, until_told=True)
    bookings.book(make_receipt("delivered"))
    assert None is told.outcome()[0]
    moving.away = False
    until(lambda: len(bookings) == 0)

    assert (None, 7) == (moving.receipt("withheld"), moving.tokens())


@pytest.mark.long
def test_receipt_under_way_is_not_given_up_before_its_end_is_known(
    bookings: BookingQueue, moving: MovingLedger
) -> None:
    """A receipt that stands nowhere else and that a database hangs with is not said to be withheld: it may be booked.

    What only waits behind it is taken back, and not booked later.
    """
    moving.answers.clear()
    first, second = Told(), Told()
    bookings.book(make_receipt("under way"), first, until_told=True)
    until(lambda: moving.attempts == 1)
    bookings.book(make_receipt("behind"), second, until_told=True)
    assert None is second.outcome()[0]
    time.sleep(0.3)
    assert first.outcomes.empty(), "it was said to be withheld, and is booked"
    moving.answers.set()

    assert isinstance(first.outcome()[0], Booking)
    until(lambda: len(bookings) == 0)
    assert (1, None) == (moving.last_sequence(), moving.receipt("behind"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_queue_whose_writer_died_is_not_alive(bookings: BookingQueue, moving: MovingLedger, spool: Spool) -> None:
    """What nobody foresaw ends the thread that writes: that shows, so that the replica is replaced."""
    assert bookings.alive
    moving.answers = None  # type: ignore[assignment]
    bookings.book(make_receipt("one"))
    until(lambda: not bookings.alive)


def test_same_receipt_twice_is_booked_once(bookings: BookingQueue, moving: MovingLedger) -> None:
    """A receipt that is adopted again while it waits, and one that was booked before, count once."""
    moving.away = True
    for _ in range(2):
        bookings.book(make_receipt("one"))
    moving.away = False
    until(lambda: len(bookings) == 0)
    told = Told()
    bookings.book(make_receipt("one"), told)
    outcome, _ = told.outcome()

    assert isinstance(outcome, Booking)
    assert (True, 1) == (outcome.replayed, moving.last_sequence())


def test_close_leaves_to_the_spool_what_cannot_be_booked(moving: MovingLedger, spool: Spool) -> None:
    """A closed booking queue tells everybody at once; what the ledger has not is still live, and told of late too."""
    bookings = BookingQueue(moving, spool, lambda *_: None)
    moving.away = True
    receipt, told, late = make_receipt("one"), Told(), Told()
    spool.append([record_of(receipt)])
    bookings.book(receipt, told)
    bookings.close()
    bookings.book(make_receipt("two"), late)

    assert (None, None) == (told.outcome()[0], late.outcome()[0])
    assert (["one"], False) == ([record["id"] for record in spool.live_records()], bookings.alive)


def test_records_are_what_was_spooled() -> None:
    """Receipts and progress come back from JSON as they were, to the hash; anything else is refused by its id."""
    receipt = replace(make_receipt("one"), measurement={"x": 0.1 + 0.2, "y": 1e-300, "z": 3.0})
    assert (receipt, receipt.payload_sha256) == (again := receipt_from(record_of(receipt)), again.payload_sha256)
    assert PROGRESS == ProgressRecord.from_record(PROGRESS.record())
    for broken in ({"id": "odd"}, {"id": "odd", "receipt": {}, "progress": {}}, {"id": "odd", "receipt": 3}):
        for read in (receipt_from, ProgressRecord.from_record):
            with pytest.raises(CreditError, match="odd"):
                read(broken)


@pytest.mark.parametrize(
    ("name", "value"),
    [("token_ids", ["7"]), ("token_ids", 7), ("prompt_ids", [1.5]), ("temperature", "hot"), ("application", None)],
)
def test_progress_of_another_form_is_refused(name: str, value: Any) -> None:
    """What another version may have spooled is refused by the field, before it reaches the model."""
    record = json.loads(json.dumps(PROGRESS.record()))
    record["progress"][name] = value

    with pytest.raises(CreditError, match=name):
        ProgressRecord.from_record(record)


class Takeover:
    """A running takeover that looks often, and the streams that it handed to the model."""

    def __init__(self, spool: Spool, bookings: BookingQueue, ledger: Ledger) -> None:
        self.handed: list[ProgressRecord] = []
        self.recovery = Recovery(
            spool, bookings, ledger, CARD.global_sha256.__eq__, self.handed.append, interval_s=0.05
        )


@pytest.fixture
def takeover(spool: Spool, bookings: BookingQueue, moving: MovingLedger) -> Iterator[Takeover]:
    """The takeover of what others leave in the spool's folder."""
    takeover = Takeover(spool, bookings, moving)
    yield takeover
    takeover.recovery.close()


def leave(spool: Spool, *records: Any) -> None:
    """What a process leaves that dies in the same folder."""
    other = Spool(spool.path.parent)
    other.append(records)
    other.close()


def test_receipts_of_the_dead_are_booked_as_they_are(takeover: Takeover, spool: Spool, moving: MovingLedger) -> None:
    """A living replica books what another left, soon, also when that one had booked it and only not said so."""
    moving.append(make_receipt("booked"))
    leave(spool, record_of(make_receipt("booked")), record_of(make_receipt("spooled")))
    until(lambda: moving.last_sequence() == 2 and not spool.live_records())

    receipt = moving.receipt("spooled")
    assert receipt is not None
    assert make_receipt("spooled").payload_sha256 == receipt.payload_sha256
    assert [spool.path] == list(spool.path.parent.iterdir())


def test_stream_of_the_served_model_is_handed_to_it_and_stays_spooled(takeover: Takeover, spool: Spool) -> None:
    """Its progress is live in the own spool until somebody books it."""
    leave(spool, PROGRESS.record())
    until(lambda: takeover.handed)

    assert [PROGRESS] == takeover.handed
    assert ["cut"] == [record["id"] for record in spool.live_records()]


def test_stream_of_another_model_goes_to_the_commons(takeover: Takeover, spool: Spool, moving: MovingLedger) -> None:
    """Tokens that nobody here can attribute are credited whole to the commons, with the reason beside them."""
    other = replace(PROGRESS, model_sha256="b" * 64)
    leave(spool, other.record())
    until(lambda: moving.last_sequence() == 1)

    receipt = moving.receipt("cut")
    assert receipt is not None
    assert ({"commons": 48_000_000}, 48, "b" * 64) == (receipt.amounts, receipt.tokens, receipt.model_sha256)
    assert (True, True) == (receipt.measurement["cut"], receipt.measurement["recovered"])
    assert "not served" in receipt.measurement["unattributed"]
    assert [] == takeover.handed


def test_stream_that_is_booked_already_is_forgotten(takeover: Takeover, spool: Spool, moving: MovingLedger) -> None:
    """A crash between the booking and the news of it does not credit a stream a second time."""
    moving.append(unscored_receipt(PROGRESS, SamplingRule(), "test"))
    leave(spool, PROGRESS.record())
    until(lambda: [spool.path] == list(spool.path.parent.iterdir()))
    until(lambda: not spool.live_records())
    assert ([], 1) == (takeover.handed, moving.last_sequence())


def test_receipt_beats_progress_in_another_file(takeover: Takeover, spool: Spool, moving: MovingLedger) -> None:
    """Where a crash left two files about one response, the finished receipt counts, whichever is read first."""
    takeover.recovery.close()
    receipt = replace(make_receipt("cut"), created_at_us=PROGRESS.created_at_us)
    for records in ([PROGRESS.record()], [record_of(receipt)], [PROGRESS.record()]):
        leave(spool, *records)
    again = Takeover(spool, takeover.recovery._bookings, moving)
    until(lambda: moving.last_sequence() == 1)
    again.recovery.close()

    assert [] == again.handed
    assert receipt.payload_sha256 == moving.receipt("cut").payload_sha256


def test_record_that_is_neither_is_set_aside(takeover: Takeover, spool: Spool, moving: MovingLedger) -> None:
    """What another version wrote and this one cannot read is kept for somebody to look at; the rest is booked."""
    leave(spool, {"id": "odd", "kind": "receipt"}, record_of(make_receipt("good")))
    until(lambda: moving.last_sequence() == 1)

    until(lambda: not spool.live_records())
    (aside,) = spool.path.parent.glob("refused-*.jsonl")
    assert "odd" in aside.read_text()


@pytest.mark.long
def test_threads_and_an_unsteady_database_lose_and_double_nothing(
    bookings: BookingQueue, moving: MovingLedger, spool: Spool
) -> None:
    """Eight threads book while the database comes and goes: each receipt is in the ledger once, the spool is empty."""

    def book(thread: int) -> None:
        for number in range(40):
            receipt, told = make_receipt(f"{thread}-{number}"), Told()
            spool.append([record_of(receipt)])
            bookings.book(receipt, told)
            told.outcome()
            time.sleep(0.005)

    threads = [threading.Thread(target=book, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        moving.away = not moving.away
        time.sleep(0.07)
    moving.away = False
    until(lambda: len(bookings) == 0)

    assert (320, []) == (moving.last_sequence(), spool.live_records())
