"""Group commit: whatever receipts wait while one transaction is written go into the next one together.

A thread of its own, so that whoever books does not wait for others' disk writes one by one. Knows no spool: what is
submitted and not yet booked is lost with the process unless the caller keeps it.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future

from rewards.credit import Receipt
from rewards.errors import LedgerError
from rewards.ledger.ledger import Booking, Ledger

BATCH_RECEIPTS = 256
"""The most receipts of one transaction, so that nobody waits long for a batch to fill or to be written."""

_Item = tuple["Receipt", "Future[Booking]"]


class LedgerWriter:
    """Books receipts in groups. `submit` may be called from any thread; `close` books what waits, then ends."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="protoken-ledger-writer", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether receipts are still being booked."""
        return self._thread.is_alive()

    def submit(self, receipt: Receipt) -> Future[Booking]:
        """A future of the booking, done when it is durable; it fails as `Ledger.append` raises.

        It can be cancelled until the transaction begins, and the receipt is not booked then.
        """
        future: Future[Booking] = Future()
        self._waiting.put((receipt, future))
        return future

    def close(self) -> None:
        """Book what was submitted before, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch, ending = self._next_batch()
            batch = [item for item in batch if item[1].set_running_or_notify_cancel()]
            if batch:
                self._book(batch)
            if ending:
                return

    def _next_batch(self) -> tuple[list[_Item], bool]:
        """What waits now, at least one item; and whether the end was asked for behind it."""
        batch: list[_Item] = []
        item = self._waiting.get()
        while item is not None:
            batch.append(item)
            if len(batch) == BATCH_RECEIPTS:
                return batch, False
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _book(self, batch: list[_Item]) -> None:
        try:
            outcomes = self._ledger.append_many([receipt for receipt, _ in batch])
        except LedgerError as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Booking):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
