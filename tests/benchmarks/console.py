"""`make bench-console`: how quick the console's pages are over a million receipts.

The ledger is SQLite in a folder of this disk, loaded by SQL past the writer, with closed periods that have statements,
and sealed. The whole app runs behind a real server in a process of its own; a page's time is what its reader waits for
on loopback, one after another, while receipts are booked and the figures read anew. The model is scripted.
"""

import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated

import httpx
import typer
import uvicorn
from sqlalchemy import text

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.retention.replays import Replays
from rewards import periods
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.settlement.policy import Policy
from rewards.signing.keys import SigningKey
from tests.benchmarks.figures import Figure, print_figures
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.rewards.receipts import make_receipt

ORIGIN = "hospital-net/ledger"
CLIENTS = {client: f"The {client}" for client in CARD.client_ids} | {"port": "The port", "mill": "The mill"}
PEPPER = bytes(32)
PERIODS = 5
BETWEEN_US = 8_640_000  # a million receipts in a hundred days
PAUSE_S = 0.1  # between two requests for a page, so that some come when the figures are to be read anew
PROCESSES = multiprocessing.get_context("spawn")

FILL_RECEIPTS = """
INSERT INTO receipts (sequence, kind, response_id, payload_sha256, salt, booked_at_us, created_at_us, application,
    consortium, model_sha256, method, settings, version, tokens, measurement, duration_us)
WITH RECURSIVE numbers(n) AS (SELECT :after + 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :up_to)
SELECT n, 'response', 'r' || n, :digest, :digest, :end_us - (:last - n) * :between_us,
    :end_us - (:last - n) * :between_us - 1000000, 'shop-' || (n % 7), :model, :digest, 'credit', '{}', '1', 20,
    '{}', 1000000 FROM numbers
"""
FILL_ENTRIES = """
INSERT INTO entries (receipt_sequence, account, amount)
WITH RECURSIVE numbers(n) AS (SELECT :after + 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :up_to)
SELECT n, account, 4000000 + sign * (n % 1000000) FROM numbers,
    (SELECT 'bank' AS account, 1 AS sign UNION ALL SELECT 'clinic', -1 UNION ALL SELECT 'commons', 0
     UNION ALL SELECT 'mill', 2 UNION ALL SELECT 'port', -2)
ORDER BY 1, 2
"""


def main(
    receipts: Annotated[int, typer.Option(help="Receipts in the ledger, of five entries each.")] = 1_000_000,
    times: Annotated[int, typer.Option(help="How often each page is asked for.")] = 60,
) -> None:
    """Measure, print the table, and one JSON line for each figure."""
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as name:
        folder = Path(name).absolute()
        keys = _fill(folder, receipts)
        how = f"{receipts:,} receipts of 5 entries, SQLite"
        with _listening(folder) as (address, begin), _sessions(address, keys) as (operator, member):
            first_ms = _milliseconds(operator, "/")
            while "One moment" in operator.get("/console/").text:
                time.sleep(0.05)
            reading_s = time.monotonic() - begin
            assert "Who earned the open period" in operator.get("/console/").text
            with _booking(folder):
                measured = {
                    name: sorted(_each(reader, path, times))
                    for reader, pages in ((operator, _pages(receipts)), (member, _member_pages(receipts)))
                    for name, path in pages.items()
                }
    figures = [
        Figure("first_page_ms", first_ms, 200, detail="overview, first reading under way"),
        Figure("first_reading_s", reading_s, 60, detail=f"from the start until the overview has figures; {how}"),
    ]
    for name, spans in measured.items():
        target = 200 if name == "overview" else 500
        figures.append(Figure(f"{name}_p50_ms", statistics.median(spans), target, detail=f"{times} times"))
        figures.append(
            Figure(f"{name}_p95_ms", spans[int(0.95 * len(spans))], target, detail="receipts booked meanwhile")
        )
    print_figures("console", figures)


def _pages(receipts: int) -> dict[str, str]:
    return {
        "overview": "/",
        "clients": "/clients",
        "client": "/clients/mill",
        "responses": "/responses",
        "responses_of_client": "/responses?client=mill",
        "responses_of_application": "/responses?application=shop-3",
        "response": f"/responses/r{receipts // 2}",
        "periods": "/periods",
        "period": "/periods/period-2",
        "statements": "/statements",
        "trust": "/trust",
    }


def _member_pages(receipts: int) -> dict[str, str]:
    return {
        "member_overview": "/",
        "member_responses": "/responses",
        "member_response": f"/responses/r{receipts // 2}",
        "member_period": "/periods/period-2",
    }


def _fill(folder: Path, receipts: int) -> dict[str, str]:
    """A ledger with closed periods, an open one, and everything sealed: a key of each role that looks."""
    url = _url(folder)
    Ledger.prepare(url)
    ledger, ring = Ledger(url), KeyRing(url, PEPPER)
    ledger.register(CARD.name, CLIENTS)
    values = {
        "digest": CARD.global_sha256,
        "model": CARD.name,
        "end_us": time.time_ns() // 1000,
        "last": receipts,
        "between_us": BETWEEN_US,
    }
    part = receipts // (PERIODS + 1)
    for number in range(PERIODS + 1):
        up_to = receipts if number == PERIODS else (number + 1) * part
        with ledger.database.write() as connection:
            for statement in (FILL_RECEIPTS, FILL_ENTRIES):
                connection.execute(text(statement), values | {"after": number * part, "up_to": up_to})
        if number < PERIODS:
            periods.close(ledger, f"period-{number}", Policy(pool=1_000_000, currency="EUR"), "benchmark")
    _say(f"{receipts:,} receipts are loaded, and {PERIODS} periods closed")
    key = SigningKey.generate(ORIGIN)
    key.save(folder / "signing.key")
    seal(ledger, key, ORIGIN)
    _say("and sealed")
    keys = {"operator": ring.create("operator", "benchmark", actor="benchmark")}
    keys["member"] = ring.create("member", "benchmark", actor="benchmark", client="mill")
    ring.close()
    ledger.close()
    return keys


def _url(folder: Path) -> str:
    return f"sqlite:///{folder}/ledger.db"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


@contextmanager
def _listening(folder: Path) -> Iterator[tuple[str, float]]:
    """The app in a process of its own: its address, and the moment when it was built, by the system's steady clock."""
    told = PROCESSES.Queue()
    process = PROCESSES.Process(target=_serve, args=(folder, told), daemon=True)
    process.start()
    begin, port = told.get()
    yield f"http://127.0.0.1:{port}", begin
    process.terminate()
    process.join()


def _serve(folder: Path, told: "multiprocessing.Queue") -> None:
    begin = time.monotonic()
    ledger, ring = Ledger(_url(folder)), KeyRing(_url(folder), PEPPER)
    app = build_app(
        ScriptedEngine(ledger),
        Books(ledger, ring, folder / "signing.key"),
        Replays(folder / "replays", 60.0),
        default_max_tokens=64,
    )
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    socket = config.bind_socket()
    told.put((begin, socket.getsockname()[1]))
    uvicorn.Server(config).run([socket])


@contextmanager
def _sessions(address: str, keys: dict[str, str]) -> Iterator[list[httpx.Client]]:
    """A browser for each key, signed in."""
    browsers = [httpx.Client(base_url=address, timeout=120) for _ in keys]
    for browser, key in zip(browsers, keys.values(), strict=True):
        signed_in = browser.post("/console/sign-in", data={"key": key})
        assert signed_in.status_code == 303, signed_in.text
    yield browsers
    for browser in browsers:
        browser.close()


@contextmanager
def _booking(folder: Path) -> Iterator[None]:
    """Receipts are booked, some a second, as long as this lasts."""
    stop = threading.Event()

    def book() -> None:
        with closing(Ledger(_url(folder))) as ledger:
            for number in count():
                if stop.wait(0.2):
                    return
                receipt = make_receipt(f"late-{number}", shares={"bank": 0.25, "mill": 0.5})
                ledger.append(replace(receipt, consortium=CARD.name))

    with ThreadPoolExecutor(1) as pool:
        booking = pool.submit(book)
        yield
        stop.set()
        booking.result()


def _each(browser: httpx.Client, path: str, times: int) -> Iterator[float]:
    for _ in range(times):
        time.sleep(PAUSE_S)
        yield _milliseconds(browser, path)


def _milliseconds(browser: httpx.Client, path: str) -> float:
    begin = time.perf_counter()
    response = browser.get(f"/console{path}")
    span = 1000 * (time.perf_counter() - begin)
    assert response.status_code == 200, f"{path}: {response.status_code}"
    return span


if __name__ == "__main__":
    typer.run(main)
