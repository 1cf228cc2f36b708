"""Answers to applications do not wait for whoever writes in the ledger, and audits of others take nothing of theirs."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI

from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.store import events
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.gateway.test_routes import TEXT
from tests.waiting import PATIENCE_S, until

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.rollback()
"""
AT_ONCE_S = 20.0
"""Less than who waits for the ledger's lock does (30 s and more), and enough for two busy cores."""
AUDITED = 40


@contextmanager
def held(ledger: Ledger) -> Iterator[None]:
    """Another process has the ledger's one place to write, for as long as the `with` lasts."""
    path = ledger.database.url.removeprefix("sqlite:///")
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert "held\n" == holder.stdout.readline()
        try:
            yield
        finally:
            holder.stdin.write("\n")
            holder.stdin.flush()
            holder.wait(10)


@pytest.fixture(autouse=True)
def patience() -> None:
    """The service's own: how soon a claim gives up is looked at here."""


@pytest.fixture
def ask(address: str, engine: ScriptedEngine) -> Iterator[httpx.Client]:
    """A caller of the service on its port, whose replicas spool what they cannot book."""
    engine.books = False
    with httpx.Client(base_url=address, timeout=PATIENCE_S, limits=httpx.Limits(max_connections=200)) as client:
        yield client


def timed(ask: httpx.Client, key: str, **headers: str) -> tuple[int, float, str]:
    """Status, seconds and body of a completion."""
    begun = time.monotonic()
    given = {"Authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = ask.post("/v1/completions", json=TEXT | {"max_tokens": 3}, headers=given)
    return answer.status_code, time.monotonic() - begun, answer.text


def test_completions_go_on_while_somebody_else_writes(ask: httpx.Client, ledger: Ledger, keys: KeyRing) -> None:
    """New keys and known ones, with budgets and without, on every core: none waits; nor do models and replays."""
    known = keys.create("application", "known", actor="test")
    fresh = [
        keys.create("application", f"fresh {n}", actor="test", token_budget=1000, requests_per_minute=100)
        for n in range(10)
    ]
    first = timed(ask, known, Idempotency_Key="before")
    with held(ledger), ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda key: timed(ask, key), [known, *fresh] * 3))
        replayed = timed(ask, known, Idempotency_Key="before")
        models = ask.get("/v1/models", headers={"Authorization": f"Bearer {known}"})

    assert {200} == {status for status, _, _ in answers}
    assert max(seconds for _, seconds, _ in answers) < AT_ONCE_S
    assert (200, first[2]) == (replayed[0], replayed[2]) and replayed[1] < AT_ONCE_S
    assert CARD.name == models.json()["data"][0]["id"]


def test_a_claim_waits_a_little_and_is_told_to_come_back(ask: httpx.Client, ledger: Ledger, keys: KeyRing) -> None:
    """With an `Idempotency-Key` something must be written first: 503 in bounded time, and later the key is good."""
    key = keys.create("application", "shop", actor="test")
    with held(ledger), ThreadPoolExecutor(30) as pool:
        claimed = [pool.submit(timed, ask, key, Idempotency_Key=f"order {n}") for n in range(12)]
        time.sleep(0.3)
        plain = [timed(ask, key) for _ in range(3)]
        refused = [each.result() for each in claimed]

    def answered() -> tuple[int, float, str] | None:
        answer = timed(ask, key, Idempotency_Key="order 1")
        return answer if answer[0] != 409 else None

    again = until(answered, what="an answer under the key that is free again")

    assert {503} == {status for status, _, _ in refused}
    assert all("ledger_unavailable" in body for _, _, body in refused)
    assert max(seconds for _, seconds, _ in refused) < 2 + AT_ONCE_S
    assert [200] * 3 == [status for status, _, _ in plain]
    assert max(seconds for _, seconds, _ in plain) < AT_ONCE_S
    assert 200 == again[0]


def test_audited_calls_hold_nobody_up(ask: httpx.Client, ledger: Ledger, keys: KeyRing) -> None:
    """Forty calls of an operator wait for their events while the ledger is held; completions pass, and all is noted."""
    application = keys.create("application", "shop", actor="test")
    operator = {"Authorization": f"Bearer {keys.create('operator', 'treasurer', actor='test')}"}
    with ThreadPoolExecutor(AUDITED) as pool:
        with held(ledger):
            audited = [pool.submit(ask.get, "/api/v1/consortium", headers=operator) for _ in range(AUDITED)]
            time.sleep(0.5)
            answers = [timed(ask, application) for _ in range(5)]
            waiting = sum(not each.done() for each in audited)
        statuses = [each.result().status_code for each in audited]
    with ledger.database.read() as connection:
        written = events.find(connection, kinds=["call"])

    assert [200] * 5 == [status for status, _, _ in answers]
    assert max(seconds for _, seconds, _ in answers) < AT_ONCE_S
    assert AUDITED == waiting, "an audited call was answered before it was written down"
    assert [200] * AUDITED == statuses
    assert AUDITED == len(written)


def test_an_application_signs_in_to_the_console_without_waiting(
    ask: httpx.Client, app: FastAPI, ledger: Ledger, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: it is counted, where others' signing in is an event each, for which they wait."""
    monkeypatch.setattr(app.state.calls, "_clock", lambda: 0.0)  # within one minute
    key = keys.create("application", "shop", actor="test")
    with held(ledger):
        begun = time.monotonic()
        statuses = [ask.post("/console/sign-in", data={"key": key}).status_code for _ in range(5)]
        seconds = time.monotonic() - begun
    app.state.calls.close()
    with ledger.database.read() as connection:
        (written,) = events.find(connection, kinds=["call"])

    assert [303] * 5 == statuses
    assert seconds < 2 * AT_ONCE_S
    assert ("/console/sign-in", 5) == (written.subject, written.document["count"])


def test_strangers_write_nothing(
    ask: httpx.Client, app: FastAPI, ledger: Ledger, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls without a good key, of any path, leave no row; refused ones of a good key leave one, written later."""
    monkeypatch.setattr(app.state.calls, "_clock", lambda: 0.0)  # within one minute, at the end of which it is written
    application = keys.create("application", "shop", actor="test")
    before = _rows(ledger)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: ask.get(f"/api/v1/keys/{n}", headers={"Authorization": f"Bearer ptk_{n}"}), range(60)))
        good = {"Authorization": f"Bearer {application}"}
        list(pool.map(lambda n: ask.get(f"/api/v1/keys/{n}", headers=good), range(60)))

    assert before == _rows(ledger)


def _rows(ledger: Ledger) -> int:
    with ledger.database.read() as connection:
        return len(events.find(connection, limit=1000))
