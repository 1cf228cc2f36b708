"""SIGKILL in the middle of traffic: what an application saw complete is in the ledger, exactly once."""

import json
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from rewards import Ledger
from tests.end_to_end.service import Service, new_ledger, service

pytestmark = pytest.mark.slow
REQUESTS = 20


def test_sigkill_among_twenty_requests_loses_and_doubles_nothing(real_bundle, tmp_path):
    """Every response seen complete, before the kill or after the restart, has one receipt that sums to its tokens."""
    ledger, log = new_ledger(tmp_path), tmp_path / "serve.log"
    seen = _Seen()
    with service(real_bundle, ledger, log) as first, ThreadPoolExecutor(REQUESTS) as pool:
        for number in range(REQUESTS):
            pool.submit(seen.ask, first, number)
        assert seen.some_complete.wait(120), "no response was complete within two minutes"
        family = [first.process, *psutil.Process(first.process.pid).children(recursive=True)]
        os.kill(first.process.pid, signal.SIGKILL)
        _assert_gone(family)
    complete_before = len(seen.complete)
    with service(real_bundle, ledger, log) as second:
        seen.ask(second, 0)

    book = Ledger(ledger)
    assert complete_before < REQUESTS, "the kill came too late to interrupt anything"
    assert len(seen.complete) == complete_before + 1
    for response_id, tokens in seen.complete.items():
        assert sum(book.receipt(response_id)["amounts"].values()) == tokens * 1_000_000
    with sqlite3.connect(ledger.removeprefix("sqlite:///")) as rows:
        booked = [row[0] for row in rows.execute("SELECT response_id FROM receipts")]
    assert len(booked) == len(set(booked))
    assert sum(book.balances().values()) == book.tokens() * 1_000_000


class _Seen:
    """What the applications saw: the tokens of each response whose end they received."""

    def __init__(self) -> None:
        self.complete: dict[str, int] = {}
        self.some_complete = threading.Event()

    def ask(self, running: Service, number: int) -> None:
        body = {
            "model": "real",
            "messages": [{"role": "user", "content": f"Count from {number} to fifty."}],
            "max_tokens": 2 + 3 * number,
            "stream": number % 2 == 1,
            "stream_options": {"include_usage": True} if number % 2 == 1 else None,
        }
        headers = {"Authorization": f"Bearer {running.application}"}
        try:
            with httpx.stream(
                "POST", f"{running.address}/v1/chat/completions", json=body, headers=headers, timeout=300
            ) as got:
                found = _complete(got.read().decode())
        except httpx.TransportError:
            return
        if found:
            self.complete[found[0]] = found[1]
            if len(self.complete) >= 3:
                self.some_complete.set()


def _complete(text: str) -> tuple[str, int] | None:
    """Response id and tokens, where the response was received to its end."""
    if text.startswith("data:"):
        if "data: [DONE]" not in text:
            return None
        chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        usage = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
        return (chunks[0]["id"], usage[0]["completion_tokens"]) if usage else None
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return None
    return (document["id"], document["usage"]["completion_tokens"]) if "usage" in document else None


def _assert_gone(family: list[psutil.Process]) -> None:
    """Nothing that serves or books outlives the service; Ray's two agents end by themselves, later."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        alive = [
            name for name in map(_name, family[1:]) if name not in {"", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}
        ]
        if not alive:
            return
        time.sleep(0.5)
    raise AssertionError(f"still running after SIGKILL: {alive}")


def _name(process: psutil.Process) -> str:
    """What a process is, or nothing where it has ended."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.NoSuchProcess:
        return ""
