"""The ledger held against what callers saw: nothing missing, nothing twice, all credit there, every row in order."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

from rewards.credit import MICRO_CREDITS_PER_TOKEN
from rewards.ledger.ledger import Ledger
from tests.benchmarks.figures import Figure
from tests.benchmarks.mixed_load.callers import Seen
from tests.benchmarks.mixed_load.publishing import Publishing

BOOKING_PATIENCE_S = 120.0
PAGE = 10_000


def await_bookings(url: str, seen: Seen) -> None:
    """Wait until whatever was seen whole is booked, but not for ever: a spool may have been left by a dead process."""
    deadline = time.monotonic() + BOOKING_PATIENCE_S
    with closing(Ledger(url)) as ledger:
        while time.monotonic() < deadline and any(ledger.receipt(each) is None for each in seen.whole):
            time.sleep(1)


def figures_of_books(url: str, seen: Seen, publishing: Publishing) -> Iterator[Figure]:
    """What the books lack or have too much, each to be nothing."""
    with closing(Ledger(url)) as ledger:
        receipts = list(chain.from_iterable(_pages(ledger)))
        difference = abs(sum(ledger.balances().values()) - ledger.tokens() * MICRO_CREDITS_PER_TOKEN)
    booked = {receipt.response_id: receipt for receipt in receipts}
    times = Counter(receipt.response_id for receipt in receipts)
    missing = [each for each, tokens in seen.whole.items() if each not in booked or booked[each].tokens != tokens]
    twice = [each for each, count in times.items() if count > 1] + seen.doubled
    uneven = [
        receipt.response_id
        for receipt in receipts
        if sum(receipt.amounts.values()) != receipt.tokens * MICRO_CREDITS_PER_TOKEN
    ]
    verified = subprocess.run(
        [sys.executable, "-m", "deployment.cli", "ledger", "verify", "--ledger", url],
        capture_output=True,
        text=True,
        check=False,
    )
    how = f"{len(seen.whole)} seen whole, {len(receipts)} receipts"
    yield Figure("mixed_missing", len(missing), 0, detail=f"{how} {missing[:3]}")
    yield Figure("mixed_doubled", len(twice), 0, detail=f"{seen.counts['given again']} given again {twice[:3]}")
    yield Figure("mixed_credit_difference", difference + len(uneven), 0, detail="micro-credits over all receipts")
    misnamed = publishing.misnamed(receipts)
    changes = f"{len(publishing.changes)} changes of round, {publishing.of_second(receipts)} receipts of the second"
    yield Figure("mixed_misnamed_rounds", len(misnamed), 0, detail=f"{changes} {misnamed[:3]}")
    yield Figure("mixed_failed_changes", len(publishing.failures), 0, detail=" ".join(publishing.failures))
    told = verified.stderr.strip() if verified.returncode else verified.stdout.strip().partition("\n")[0]
    yield Figure("mixed_verify", verified.returncode, 0, detail=f"protoken ledger verify: {told}")


def _pages(ledger: Ledger) -> Iterator[list]:
    after = 0
    while page := ledger.receipts_after(after, limit=PAGE):
        yield page
        after = page[-1].sequence
