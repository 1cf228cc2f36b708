"""Scorers as processes of their own: killed in turn, and every response is credited once, as it would have been."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN
from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, updates, write_consortium
from tests.end_to_end.service import Service, new_ledger, service
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow
RESPONSES = 24
TOKENS = 24


def scorer_of(running: Service) -> psutil.Process | None:
    """The process that scores; None while there is none."""
    for process in psutil.Process(running.process.pid).children(recursive=True):
        try:
            if ":scorer" in " ".join(process.cmdline()):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def ask(running: Service, number: int, **body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {running.application}"}
    asked = {"model": "test", "prompt": f"Hello {number}", "max_tokens": TOKENS, **body}
    return httpx.post(f"{running.address}/v1/completions", json=asked, headers=headers, timeout=PATIENCE_S)


def _kill_one(running: Service, killed: set[int]) -> None:
    """SIGKILL of the scorer, unless it was killed already; then a moment, in which the next one may begin."""
    scorer = scorer_of(running)
    if scorer is not None and scorer.pid not in killed:
        killed.add(scorer.pid)
        scorer.kill()
    time.sleep(0.5)


def test_scorers_that_are_killed_lose_and_double_nothing(tmp_path: Path) -> None:
    """While the scorer is killed three times, answers end at once, and the credit of each comes."""
    model = base_model("llama")
    bundle = write_consortium(tmp_path, model, updates(model))
    ledger = new_ledger(tmp_path)
    more = {"PROTOKEN_SCORERS": "1", "PROTOKEN_CPUS_PER_REPLICA": "1"}
    with service(bundle, ledger, tmp_path / "serve.log", more=more) as running:
        inline = ask(running, 0, attribution=True)
        assert 200 == inline.status_code, inline.text
        assert inline.json()["usage"]["attribution"]["shares"]
        killed: set[int] = set()
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(ask, running, number) for number in range(1, RESPONSES)]
            until(lambda: len(killed) == 3 or _kill_one(running, killed), what="a third scorer to kill")
            bodies = [inline.json(), *(answer.result().raise_for_status().json() for answer in answers)]
        books = Ledger(ledger)
        until(lambda: books.last_sequence() >= RESPONSES)
        receipts = [books.receipt(body["id"]) for body in bodies]
        balances = books.balances()

    assert 3 == len(killed)
    assert RESPONSES == books.last_sequence()
    tokens = sum(body["usage"]["completion_tokens"] for body in bodies)
    assert tokens * MICRO_CREDITS_PER_TOKEN == sum(balances.values())
    assert all(receipt is not None and "response_scores" in receipt.measurement for receipt in receipts)
    assert balances[COMMONS] < sum(balances.values())
