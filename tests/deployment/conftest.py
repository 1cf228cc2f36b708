"""Fixtures: a ledger, a key and a caller of each role, the app over the scripted engine, and it on a real port."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import make_url
from starlette.types import ASGIApp

from deployment.access.audit_trail import Calls
from deployment.access.gate import Gate
from deployment.access.limits import Limits
from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.gateway import async_claims, idempotency
from deployment.retention.replays import Replays
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.rewards.conftest import new_database
from tests.waiting import until

PEPPER = bytes(range(32))
CLIENTS = {"clinic": "A clinic", "bank": "A bank"}
OTHER = "harbour"
OTHER_CLIENTS = {"port": "A port", "bank": "A bank"}


@pytest.fixture(scope="session")
def prepared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared, empty ledger on SQLite in which the consortium's clients are registered, to be copied."""
    return _prepared(tmp_path_factory.mktemp("prepared") / "ledger.db", {CARD.name: CLIENTS})


@pytest.fixture(scope="session")
def shared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with two consortia."""
    return _prepared(tmp_path_factory.mktemp("shared") / "ledger.db", {CARD.name: CLIENTS, OTHER: OTHER_CLIENTS})


@pytest.fixture(scope="session")
def shared_database(postgresql: str) -> str:
    """The name of a prepared, empty ledger of two consortia on PostgreSQL, to be copied."""
    url = new_database(postgresql)
    _prepare(url, {CARD.name: CLIENTS, OTHER: OTHER_CLIENTS})
    return make_url(url).database or ""


@pytest.fixture(scope="session", autouse=True)
def prepared_routes() -> Iterator[None]:
    """Routes are made ready by the first request, in a tenth of a second: an app has those of the one before it.

    They know nothing of the app that they are in: what they need is in its state, which each request brings along.
    """
    include, included = FastAPI.include_router, {}

    def include_once(app: FastAPI, router: APIRouter) -> None:
        if id(router) in included:
            app.router.routes.append(included[id(router)])
        else:
            include(app, router)
            included[id(router)] = app.router.routes[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastAPI, "include_router", include_once)
        yield


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose claims wait as long as a busy machine may need; who tests how soon they give up sets less."""
    monkeypatch.setattr(async_claims, "CLAIM_PATIENCE_S", 60.0)
    monkeypatch.setattr(idempotency, "RELEASE_PATIENCE_S", 60.0)


@pytest.fixture
def url(tmp_path: Path, prepared_file: Path) -> str:
    """The URL of a prepared, empty ledger in which the consortium's clients are registered."""
    shutil.copy(prepared_file, tmp_path / "ledger.db")
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An empty ledger, open."""
    ledger = Ledger(url)
    yield ledger
    ledger.close()


@pytest.fixture
def keys(url: str) -> Iterator[KeyRing]:
    """The key ring of that ledger."""
    keys = KeyRing(url, PEPPER)
    yield keys
    keys.close()


def gate_over(
    app: ASGIApp, keys: KeyRing, calls: Calls | None = None, clock: Callable[[], float] = time.monotonic
) -> Gate:
    """The gate of the API in front of an app."""
    limits = Limits(None, clock)  # type: ignore[arg-type] - a gate reads no budget
    return Gate(app, keys, calls or Calls(keys.database), limits, clock)


@pytest.fixture
def application_key(keys: KeyRing) -> str:
    """A key of an application."""
    return keys.create("application", "shop", actor="test")


@pytest.fixture
def engine(ledger: Ledger) -> ScriptedEngine:
    """The fake of the replicas."""
    return ScriptedEngine(ledger)


@pytest.fixture
def replays(tmp_path: Path) -> Replays:
    """An empty store of texts, kept for a minute."""
    return Replays(tmp_path / "replays", 60.0)


@pytest.fixture
def app(engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, replays: Replays) -> FastAPI:
    """The HTTP surface over it."""
    return build_app(engine, Books(ledger, keys), replays, default_max_tokens=64, max_tokens_cap=100)


@pytest.fixture
def call_as(app: FastAPI) -> Iterator[Callable[[str | None], TestClient]]:
    """A function from a key, or None, to a caller with it."""
    with ExitStack() as stack:

        def caller(key: str | None) -> TestClient:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return stack.enter_context(TestClient(app, raise_server_exceptions=False, headers=headers))

        yield caller


@pytest.fixture
def anonymous(call_as: Callable[[str | None], TestClient]) -> TestClient:
    """A caller without a key."""
    return call_as(None)


@pytest.fixture
def application(call_as: Callable[[str | None], TestClient], application_key: str) -> TestClient:
    """A caller with an application's key."""
    return call_as(application_key)


@pytest.fixture
def member(call_as: Callable[[str | None], TestClient], keys: KeyRing) -> TestClient:
    """A caller with the key of a member, whose client is the bank."""
    return call_as(keys.create("member", "bank's desk", actor="test", client="bank"))


@pytest.fixture
def operator(call_as: Callable[[str | None], TestClient], keys: KeyRing) -> TestClient:
    """A caller with an operator's key."""
    return call_as(keys.create("operator", "treasurer", actor="test"))


@pytest.fixture
def auditor(call_as: Callable[[str | None], TestClient], keys: KeyRing) -> TestClient:
    """A caller with an auditor's key."""
    return call_as(keys.create("auditor", "auditors", actor="test"))


@pytest.fixture
def admin(call_as: Callable[[str | None], TestClient], keys: KeyRing) -> TestClient:
    """A caller with an admin's key."""
    return call_as(keys.create("admin", "admins", actor="test"))


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    """The same app behind a real server on a free port of loopback: its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started, "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def _prepared(path: Path, consortia: Mapping[str, Mapping[str, str]]) -> Path:
    _prepare(f"sqlite:///{path}", consortia)
    return path


def _prepare(url: str, consortia: Mapping[str, Mapping[str, str]]) -> None:
    Ledger.prepare(url)
    ledger = Ledger(url)
    for name, clients in consortia.items():
        ledger.register(name, clients)
    ledger.close()
