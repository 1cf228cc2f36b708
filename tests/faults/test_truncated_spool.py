"""A spool that lost its end: what stands in it whole is booked, once and as it was; nothing is made of the rest."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.recovery import Recovery
from deployment.replica.messages import ModelCard
from deployment.spool.lines import line_of
from deployment.spool.records import ProgressRecord, record_of
from deployment.spool.spool import Spool
from rewards.audit.replay import audit
from rewards.ledger.ledger import Ledger
from tests.deployment.replica.booking.test_booking_queue import PROGRESS
from tests.rewards.receipts import make_receipt
from tests.waiting import until

CARD = ModelCard("demo", "a" * 64, ("bank", "clinic", "rider"), 128)
BYTES_APART = 97


@pytest.fixture
def ledger(sqlite_url: str) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    ledger = Ledger(sqlite_url)
    yield ledger
    ledger.close()


def lines_of_a_life(life: int) -> list[tuple[dict[str, int], bytes]]:
    """What a process wrote, line by line, and what is booked of it when everything up to that line is there."""
    stream, short = (replace(PROGRESS, response_id=f"{name}-{life}") for name in ("stream", "short"))
    records = [
        replace(stream, token_ids=tuple(range(16))).record(),
        record_of(make_receipt(f"whole-{life}", 5)),
        replace(stream, token_ids=tuple(range(32))).record(),
        replace(short, token_ids=tuple(range(16))).record(),
        record_of(make_receipt(short.response_id, 20)),
        record_of(make_receipt(f"last-{life}", 1)),
    ]
    booked: dict[str, int] = {}
    lines = []
    for record, tokens in zip(records, (16, 5, 32, 16, 20, 1), strict=True):
        booked = booked | {record["id"]: tokens}
        lines.append((booked, line_of(record)))
    return lines


def test_spool_that_is_cut_anywhere_is_booked_as_far_as_it_stands(
    ledger: Ledger, sqlite_url: str, tmp_path: Path
) -> None:
    """Dead processes' files, each cut at another byte: every whole record counts as if nothing had come after it."""
    folder = tmp_path / "spool"
    spool = Spool(folder)
    bookings = BookingQueue(ledger, spool, lambda *_: None)
    expected: dict[str, int] = {}
    size = sum(len(line) for _, line in lines_of_a_life(0))
    for life, cut in enumerate(range(0, size + 1, BYTES_APART)):
        lines = lines_of_a_life(life)
        data = b"".join(line for _, line in lines)[:cut]
        if whole := data.count(b"\n"):
            expected |= lines[whole - 1][0]
        (folder / f"spool-{life}.jsonl").write_bytes(data)

    def attribute(progress: ProgressRecord) -> None:
        receipt = make_receipt(progress.response_id, len(progress.token_ids))
        spool.append([record_of(receipt)])
        bookings.book(receipt)

    recovery = Recovery(spool, bookings, ledger, CARD.global_sha256.__eq__, attribute, interval_s=0.05)
    until(lambda: [spool.path] == list(folder.iterdir()) and not spool.live_records())
    recovery.close()
    bookings.close()
    spool.close()

    receipts = {receipt.response_id: receipt.tokens for receipt in ledger.receipts_after(0)}
    assert expected == receipts
    assert len(expected) > 40
    assert sum(expected.values()) == ledger.tokens()
    assert [] == list(folder.iterdir())
    assert audit(sqlite_url).difference is None
