"""Fixtures: a ledger, keys of both roles, the app over the scripted engine, and the same app on a real port."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.ingress import build_app
from rewards import KeyRing, Ledger
from tests.deployment.engines import ScriptedEngine


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a prepared, empty ledger."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    return url


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An empty ledger, open."""
    ledger = Ledger(url)
    yield ledger
    ledger.close()


@pytest.fixture
def keys(url: str) -> Iterator[KeyRing]:
    """The key ring of that ledger."""
    keys = KeyRing(url)
    yield keys
    keys.close()


@pytest.fixture
def application_key(keys: KeyRing) -> str:
    """A key of an application."""
    return keys.create("application", "shop")


@pytest.fixture
def operator_key(keys: KeyRing) -> str:
    """A key of an operator."""
    return keys.create("operator", "treasurer")


@pytest.fixture
def engine(ledger: Ledger) -> ScriptedEngine:
    """The fake of the replicas."""
    return ScriptedEngine(ledger)


@pytest.fixture
def app(engine: ScriptedEngine, ledger: Ledger, keys: KeyRing) -> FastAPI:
    """The HTTP surface over it."""
    return build_app(engine, ledger, keys, max_tokens_cap=100)


@pytest.fixture
def anonymous(app: FastAPI) -> Iterator[TestClient]:
    """A caller without a key."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def application(app: FastAPI, application_key: str) -> Iterator[TestClient]:
    """A caller with an application's key."""
    headers = {"Authorization": f"Bearer {application_key}"}
    with TestClient(app, raise_server_exceptions=False, headers=headers) as client:
        yield client


@pytest.fixture
def operator(app: FastAPI, operator_key: str) -> Iterator[TestClient]:
    """A caller with an operator's key."""
    headers = {"Authorization": f"Bearer {operator_key}"}
    with TestClient(app, raise_server_exceptions=False, headers=headers) as client:
        yield client


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    """The same app behind a real server on a free port of loopback: its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
