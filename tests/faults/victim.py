"""The booking half of a replica as a process to kill: real spool, booking queue and recovery, tokens out of thin air.

`python -m tests.faults.victim MODE LEDGER SPOOL PREFIX SEED`, where MODE is `replica` (streams without end, shown as
the worker shows them), `writer` (the group commit alone, eight threads) or `drain` (take over what the dead left, book
it, end). Says on stdout what applications ask for, are shown and get the end of; what is promised to be durable is said
only after it was made so.
"""

import os
import random
import sys
import threading
import time
from functools import partial
from itertools import count
from pathlib import Path

from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.recovery import Recovery
from deployment.replica.messages import ModelCard
from deployment.spool.records import ProgressRecord, record_of
from deployment.spool.spool import Spool
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from rewards.ledger.writer import LedgerWriter
from tests.rewards.receipts import MEMBERS, make_receipt

CARD = ModelCard("demo", "a" * 64, tuple(MEMBERS), 128)
PROGRESS_TOKENS = 16  # as `deployment.replica.booking.credit_recorder`, which would bring torch with it
STREAMS = 4
THREADS = 8
DRAINED_AFTER_S = 1.0


def say(*words: object) -> None:
    """One line for the test, whole: a short write to a pipe is atomic (POSIX, PIPE_BUF)."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def open_ledger(url: str) -> Ledger:
    """The ledger, as soon as its database is there."""
    while True:
        try:
            return Ledger(url)
        except LedgerError:
            time.sleep(0.1)


def progress_of(response_id: str, tokens: int) -> ProgressRecord:
    """A stream's progress; its receipt is that of as many tokens."""
    asked = make_receipt(response_id, 1)
    return ProgressRecord(
        response_id=response_id,
        application=asked.application,
        created_at_us=asked.created_at_us,
        consortium=asked.consortium,
        model_sha256=asked.model_sha256,
        prompt_ids=(1, 2),
        token_ids=tuple(range(tokens)),
        temperature=1.0,
        duration_us=1,
    )


def book(spool: Spool, bookings: BookingQueue, response_id: str, tokens: int) -> None:
    """Spool a receipt and book it; returns when somebody who waits for it would be told."""
    receipt, told = make_receipt(response_id, tokens), threading.Event()
    spool.append([record_of(receipt)])
    bookings.book(receipt, lambda _outcome: told.set())
    told.wait()


def stream(spool: Spool, bookings: BookingQueue, name: str, numbers: random.Random) -> None:
    """Responses without end, each token shown only when at most 15 before it are not spooled."""
    for number in count():
        response_id, spooled = f"{name}-{number}", 0
        length = numbers.randint(1, 70)
        say("asked", response_id, length)
        for tokens in range(1, length + 1):
            if tokens - spooled >= PROGRESS_TOKENS:
                spool.append([progress_of(response_id, tokens).record()])
                spooled = tokens
            say("shown", response_id, tokens)
            time.sleep(0.001)
        book(spool, bookings, response_id, length)
        say("ended", response_id, length)


def write(writer: LedgerWriter, name: str, numbers: random.Random) -> None:
    """Receipts without end, each reported when the ledger has promised it."""
    for number in count():
        tokens = numbers.randint(1, 9)
        say("asked", f"{name}-{number}", tokens)
        writer.submit(make_receipt(f"{name}-{number}", tokens)).result()
        say("ended", f"{name}-{number}", tokens)


def main(mode: str, url: str, folder: str, prefix: str, seed: str) -> None:
    """Be what the mode says."""
    ledger = open_ledger(url)
    if mode == "writer":
        run(partial(write, LedgerWriter(ledger)), THREADS, prefix, seed)
    spool = Spool(Path(folder))
    bookings = BookingQueue(ledger, spool, lambda *_: None)

    def recover(progress: ProgressRecord) -> None:
        receipt = make_receipt(progress.response_id, len(progress.token_ids))
        spool.append([record_of(receipt)])
        bookings.book(receipt)

    recovery = Recovery(spool, bookings, ledger, CARD.global_sha256.__eq__, recover, interval_s=0.3)
    if mode == "replica":
        run(partial(stream, spool, bookings), STREAMS, prefix, seed)
    drain(spool, bookings)
    recovery.close()
    bookings.close()
    spool.close()


def run(work: object, threads: int, prefix: str, seed: str) -> None:
    """The same work in several threads, until somebody kills the process."""
    for number in range(threads):
        name = f"{prefix}.{number}"
        threading.Thread(target=work, args=(name, random.Random(f"{seed} {name}"))).start()
    threading.Event().wait()


def drain(spool: Spool, bookings: BookingQueue) -> None:
    """Wait until nothing is live in any spool, and has not been for a while."""
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < DRAINED_AFTER_S:
        others = [path for path in spool.path.parent.glob("spool-*.jsonl") if path != spool.path]
        if len(spool) or len(bookings) or others:
            quiet_since = time.monotonic()
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
