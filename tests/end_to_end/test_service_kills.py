"""SIGKILL in the middle of traffic: what an application saw is in the ledger, whole responses exactly, once."""

import json
import os
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest

from rewards.ledger.ledger import Ledger
from tests.end_to_end.service import Service, new_ledger, replica_of, service
from tests.rewards.conftest import new_database
from tests.waiting import PATIENCE_S, is_up, until

pytestmark = pytest.mark.slow
REQUESTS = 20
STREAMS = 6


def test_sigkill_among_twenty_requests_loses_and_doubles_nothing(real_bundle, tmp_path):
    """Every response seen complete, before the kill or after the restart, has one receipt that sums to its tokens."""
    ledger, log = new_ledger(tmp_path), tmp_path / "serve.log"
    seen = _Seen()
    with service(real_bundle, ledger, log) as first, ThreadPoolExecutor(REQUESTS) as pool:
        for number in range(REQUESTS):
            pool.submit(seen.ask, first, number)
        assert seen.some_complete.wait(PATIENCE_S), "no response was complete"
        family = [first.process, *psutil.Process(first.process.pid).children(recursive=True)]
        os.kill(first.process.pid, signal.SIGKILL)
        _assert_gone(family)
    complete_before = len(seen.complete)
    with service(real_bundle, ledger, log) as second:
        seen.ask(second, 0)
        book = Ledger(ledger)
        until(lambda: all(book.receipt(response_id) for response_id in seen.complete))

    assert complete_before < REQUESTS, "the kill came too late to interrupt anything"
    assert len(seen.complete) == complete_before + 1
    for response_id, tokens in seen.complete.items():
        assert sum(book.receipt(response_id).amounts.values()) == tokens * 1_000_000
    with sqlite3.connect(ledger.removeprefix("sqlite:///")) as rows:
        booked = [row[0] for row in rows.execute("SELECT response_id FROM receipts")]
    assert len(booked) == len(set(booked))
    assert sum(book.balances().values()) == book.tokens() * 1_000_000


def test_sigkill_of_the_replica_cuts_streams_that_are_credited_to_within_16_tokens(real_bundle, tmp_path, postgresql):
    """Serve starts the replica again, which credits what the dead one had shown; who asks again gets a whole answer.

    The ledger is PostgreSQL, and the replica's login may book in it and nothing else.
    """
    ledger, log = new_database(postgresql), tmp_path / "serve.log"
    Ledger.prepare(ledger)
    replica_ledger = _login(ledger, "protoken_replica")
    with service(real_bundle, ledger, log, replica_ledger) as running, ThreadPoolExecutor(STREAMS) as pool:
        seen = _Seen()
        seen.ask(running, 0)
        streams = [_Stream(running, number) for number in range(STREAMS)]
        asked = [pool.submit(stream.read) for stream in streams]
        until(lambda: sum(stream.tokens for stream in streams) > 40 * STREAMS)
        os.kill(replica_of(running).pid, signal.SIGKILL)
        for each in asked:
            each.result(PATIENCE_S)
        until(lambda: is_up(f"{running.address}/health"))
        seen.ask(running, 1)
        book = Ledger(ledger)
        until(lambda: all(book.receipt(stream.response_id) for stream in streams))
        again = _Stream(running, 0)
        again.read()
        until(lambda: book.is_booked(again.response_id))

    assert [False] * STREAMS == [stream.is_whole for stream in streams], "the kill came too late"
    for stream in streams:
        receipt = book.receipt(stream.response_id)
        assert -16 <= receipt.tokens - stream.tokens <= 16, (receipt.tokens, stream.tokens)
        assert receipt.measurement["recovered"]
        assert receipt.method == "credit"
        assert sum(receipt.amounts.values()) == receipt.tokens * 1_000_000
    assert again.is_whole
    assert again.response_id != streams[0].response_id
    assert not book.receipt(again.response_id).measurement.get("cut")
    assert len(seen.complete) == 2
    for response_id, tokens in seen.complete.items():
        assert book.receipt(response_id).tokens == tokens
    assert book.last_sequence() == STREAMS + 3


def _login(ledger: str, role: str) -> str:
    """The URL of the ledger for a new login that was granted a role."""
    login = f"login_{uuid4().hex}"
    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {login} LOGIN IN ROLE {role}")
    return ledger.replace("postgres:@", f"{login}:@")


class _Stream:
    """One stream under an idempotency key, and what came of it."""

    def __init__(self, running: Service, number: int) -> None:
        self.tokens = 0
        self.response_id = ""
        self.is_whole = False
        self._running = running
        self._number = number

    def read(self) -> None:
        """Ask, and read to the end, whatever it is."""
        body = {
            "model": "real",
            "prompt": f"{self._number} bottles stood on the wall, and",
            "max_tokens": 160,
            "temperature": 2.0,
            "seed": self._number,
            "stream": True,
            "return_token_ids": True,
        }
        headers = {"Authorization": f"Bearer {self._running.application}", "Idempotency-Key": f"wall {self._number}"}
        url = f"{self._running.address}/v1/completions"
        try:
            with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as got:
                for line in got.iter_lines():
                    self._take(line)
        except httpx.TransportError:
            return

    def _take(self, line: str) -> None:
        self.is_whole = self.is_whole or line == "data: [DONE]"
        if line.startswith('data: {"id"'):
            chunk = json.loads(line[6:])
            self.response_id = chunk["id"]
            self.tokens += sum(len(choice.get("token_ids") or []) for choice in chunk["choices"])


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
                "POST", f"{running.address}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_S
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
    agents = {"", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}

    def alive() -> list[str]:
        return [name for name in map(_name, family[1:]) if name not in agents]

    until(lambda: not alive(), what=lambda: f"the end, after SIGKILL, of {alive()}")


def _name(process: psutil.Process) -> str:
    """What a process is, or nothing where it has ended."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.NoSuchProcess:
        return ""
