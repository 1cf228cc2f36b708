"""Books what is spooled: at once while the database is there, again and again until it is, and tells who waits.

What it promises: a receipt that it took is booked, or set aside by name when it never can be, however long the
database is away; and whoever waits for the booking is told within BOOKING_PATIENCE_S, booked or not. Knows receipts,
spool and ledger; knows no model and no HTTP.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from deployment.errors import SpoolError
from deployment.spool.records import record_of
from deployment.spool.spool import Spool
from rewards.credit import Receipt
from rewards.errors import CreditError, LedgerRefusedError, ReceiptConflictError, RewardsError
from rewards.ledger.ledger import Booking, Ledger
from rewards.ledger.writer import LedgerWriter

_LOG = logging.getLogger(__name__)
BOOKING_PATIENCE_S = 1.0
"""How long the end of a response waits for its booking, before it goes out on the word of the spool alone."""
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0
_TICK_S = 0.1

Outcome = Booking | RewardsError | None
"""Where a receipt stands: in the ledger, refused by it for ever, or (None) still on the way."""
OutcomeListener = Callable[[Outcome], None]


@dataclass(eq=False)
class _PendingReceipt:
    """A receipt on its way to the ledger.

    Attributes:
        receipt: what is to be booked.
        listener: whom to tell how it stands; None once that is done, or where nobody waits.
        until_told: give up once somebody was told that it is not booked.
        since: when it came, by the system's steady clock.
        submitted: whether the ledger's writer has it.
        booking: what the writer will answer; None while it has nothing.
    """

    receipt: Receipt
    listener: OutcomeListener | None
    until_told: bool
    since: float = field(default_factory=time.monotonic)
    submitted: bool = False
    booking: "Future[Booking] | None" = None

    @property
    def can_be_given_up(self) -> bool:
        """Whether it is not booked once somebody is told so; a transaction that has begun may book it yet."""
        if not self.until_told or not self.submitted:
            return True
        return self.booking is not None and self.booking.cancel()


class BookingQueue:
    """Takes receipts from any thread; tells outcomes from threads of its own.

    Args:
        ledger: where receipts are booked.
        spool: where they stand already, and are forgotten once they are booked.
        lag: is told, a few times a second, how many receipts wait and for how many seconds the oldest has.
    """

    def __init__(self, ledger: Ledger, spool: Spool, lag: Callable[[int, float], None]) -> None:
        self._spool = spool
        self._lag = lag
        self._writer = LedgerWriter(ledger)
        self._changed = threading.Condition()
        self._waiting: dict[str, _PendingReceipt] = {}
        self._pause_s = FIRST_RETRY_S
        self._retry_at: float | None = None  # while somebody is to be submitted again
        self._is_away = False  # the database, so that nobody is submitted before
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="protoken-bookings", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether receipts are still being booked."""
        return self._thread.is_alive() and self._writer.alive

    def __len__(self) -> int:
        return len(self._waiting)

    def book(self, receipt: Receipt, listener: OutcomeListener | None = None, *, until_told: bool = False) -> None:
        """Book a receipt, and tell once how it stands: as soon as that is settled, else when patience is over.

        Args:
            receipt: stands in the spool, unless the disk refused it.
            listener: may be called before this returns, and from another thread.
            until_told: give up once somebody was told that it is not booked. A transaction that has begun is waited
                for first. It is for a receipt that stands nowhere else, of a response that was not delivered.
        """
        entry = _PendingReceipt(receipt, listener, until_told)
        with self._changed:
            known = receipt.response_id in self._waiting
            closing = self._closing
            if not known and not closing:
                self._waiting[receipt.response_id] = entry
                entry.submitted = not self._is_away
                if len(self._waiting) == 1:
                    self._changed.notify()
        if entry.submitted:
            self._submit(entry)
        elif known or closing:
            self._tell(entry, None)

    def close(self) -> None:
        """Book what can be booked now, tell everybody who waits, and end. What is left stays in the spool."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._writer.close()
        for entry in list(self._waiting.values()):
            self._tell(entry, None)

    def _submit(self, entry: _PendingReceipt) -> None:
        entry.booking = self._writer.submit(entry.receipt)
        entry.booking.add_done_callback(lambda future: self._settle(entry, future))

    def _settle(self, entry: _PendingReceipt, future: "Future[Booking]") -> None:
        """The writer's answer: booked, refused for ever, or to be tried again. Called in the writer's thread."""
        if future.cancelled():  # given up
            return
        name, error = entry.receipt.response_id, future.exception()
        if error is not None and not isinstance(error, ReceiptConflictError | CreditError):
            self._postpone(entry, error)
            return
        with self._changed:
            self._waiting.pop(name, None)
            self._pause_s = FIRST_RETRY_S
            if self._retry_at is not None:
                self._retry_at = 0.0  # the database is back: everybody else at once
                self._changed.notify()
        try:
            if error is None:
                self._spool.mark_done([name])
            else:
                self._spool.set_aside(record_of(entry.receipt), str(error))
        except SpoolError:  # closed: what is booked is adopted once more, and counts once
            _LOG.warning("response %s is settled, but stays in the spool", name)
        self._tell(entry, future.result() if error is None else error)

    def _postpone(self, entry: _PendingReceipt, error: BaseException) -> None:
        is_refused = isinstance(error, LedgerRefusedError)  # this receipt alone, by a rule that it may fit later
        with self._changed:
            entry.submitted = False
            self._is_away = self._is_away or not is_refused
            if self._retry_at is None:
                what = f"response {entry.receipt.response_id} is refused" if is_refused else "the ledger is away"
                _LOG.warning("%s; trying again in %.1f s: %s", what, self._pause_s, error)
                self._retry_at = time.monotonic() + self._pause_s
                self._pause_s = min(2 * self._pause_s, LAST_RETRY_S)
                self._changed.notify()

    def _tell(self, entry: _PendingReceipt, outcome: Outcome) -> None:
        with self._changed:
            listener, entry.listener = entry.listener, None
            if outcome is None and entry.until_told:
                self._waiting.pop(entry.receipt.response_id, None)
                _LOG.error("response %s is withheld: neither disk nor ledger took it", entry.receipt.response_id)
        if listener is not None:
            listener(outcome)

    def _run(self) -> None:
        while not self._closing:
            now, entries, retried = time.monotonic(), *self._due()
            self._lag(len(entries), now - entries[0].since if entries else 0.0)
            for entry in retried:
                self._submit(entry)
            for entry in entries:
                if entry.listener is not None and now >= entry.since + BOOKING_PATIENCE_S and entry.can_be_given_up:
                    self._tell(entry, None)
            with self._changed:
                if entries:
                    self._changed.wait(_TICK_S)
                else:
                    self._changed.wait_for(lambda: self._waiting or self._closing)

    def _due(self) -> tuple[list[_PendingReceipt], list[_PendingReceipt]]:
        """Whoever waits, oldest first, and who of them is to be submitted again now."""
        with self._changed:
            entries = list(self._waiting.values())
            if self._retry_at is None or time.monotonic() < self._retry_at:
                return entries, []
            self._retry_at, self._is_away = None, False
            retried = [entry for entry in entries if not entry.submitted]
            for entry in retried:
                entry.submitted = True
            return entries, retried
