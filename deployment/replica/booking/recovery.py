"""What a dead process left in its spool, taken over: receipts are booked, streams that it cut are credited.

Runs at start and now and then, so that a replica which dies is taken over by one that lives. Knows no attribution:
whoever owns the model is handed the streams that it can attribute.
"""

import logging
import threading
from collections.abc import Callable

from deployment.errors import log_text_of
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.spool.lines import Record
from deployment.spool.records import RECOVERED, ProgressRecord, receipt_from, unscored_receipt
from deployment.spool.spool import Spool
from rewards.errors import CreditError, LedgerError
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys
from rewards.sampled_credit.rule import SamplingRule

_LOG = logging.getLogger(__name__)
ADOPTION_INTERVAL_S = 10.0


class Recovery:
    """Takes over the files of dead processes, in a thread of its own, until it is closed.

    Args:
        spool: the own one, to which their records go.
        bookings: books receipts.
        ledger: asked whether a stream is booked already.
        knows: whether what a model generated, by its hash, can be scored here.
        attribute: is handed such a response, in whole or in part; books what comes of it.
        interval_s: how often it looks for them, in seconds.
    """

    def __init__(
        self,
        spool: Spool,
        bookings: BookingQueue,
        ledger: Ledger,
        knows: Callable[[str], bool],
        attribute: Callable[[ProgressRecord], None],
        interval_s: float = ADOPTION_INTERVAL_S,
    ) -> None:
        self._spool = spool
        self._bookings = bookings
        self._ledger = ledger
        self._knows = knows
        self._attribute = attribute
        self._sampling = SamplingKeys(ledger.database)
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="protoken-recovery", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether dead processes are still being looked for."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread; what was taken over and is not booked stays in the own spool."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._take_over()
            if self._closing.wait(self._interval_s):
                return

    def _take_over(self) -> None:
        records: dict[str, Record] = {}
        for adopted in self._spool.adopt():
            if adopted.records:
                _LOG.warning("took over %d records of a dead process: %s", len(adopted.records), adopted.path)
            for record in adopted.records:
                if records.get(record["id"], {}).get("kind") != "receipt":
                    records[record["id"]] = record
        for record in records.values():
            try:
                self._book(record)
            except CreditError as error:
                self._spool.set_aside(record, str(error))
            except Exception as error:  # noqa: BLE001 - this record's, which stays in the spool; the others are booked
                _LOG.error("record %r of a dead process waits for the next one: %s", record["id"], log_text_of(error))

    def _book(self, record: Record) -> None:
        """Book a receipt as it is; give a stream to the model, or to the commons when its model is not served here.

        Raises:
            CreditError: the record holds neither.
        """
        if record["kind"] == "receipt":
            self._bookings.book(receipt_from(record))
            return
        progress = ProgressRecord.from_record(record)
        if self._is_booked(progress.response_id):
            self._spool.mark_done([progress.response_id])
        elif self._knows(progress.model_sha256):
            self._attribute(progress)
        else:
            rule = self._sampling.rule(progress.consortium, progress.created_at_us)
            book_unscored(progress, rule, self._bookings)

    def _is_booked(self, response_id: str) -> bool:
        """Whether the ledger has it: its end was booked, and only the news of that was lost. False when unknown."""
        try:
            return self._ledger.is_booked(response_id)
        except LedgerError:
            return False


def book_unscored(progress: ProgressRecord, rule: SamplingRule, bookings: BookingQueue) -> None:
    """Book what a model generated that nobody here can load: pending where it is not measured, else the commons'.

    Raises:
        CreditError: there are no tokens, or a field cannot be booked.
    """
    marks = RECOVERED if progress.finish_reason is None else {}
    bookings.book(unscored_receipt(progress, rule, "the model that generated it is not served any more", marks))
