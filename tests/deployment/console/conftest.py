"""Fixtures: the console over books with something of everything, and a browser of each role that has signed in."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import Mount

from deployment.app.http_app import build_app
from deployment.console.figures.snapshot import Figures, FiguresSnapshot
from deployment.retention.replays import Replays
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.conftest import url  # noqa: F401 - on both databases, where a module says so
from tests.deployment.api.world import World, make_world
from tests.deployment.gateway.engines import ScriptedEngine
from tests.waiting import until

SignIn = Callable[[str], TestClient]


@pytest.fixture
def world(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> World:
    """Books with something of everything, and a key of each role."""
    return make_world(ledger, keys, tmp_path)


@pytest.fixture
def app(engine: ScriptedEngine, world: World, replays: Replays) -> FastAPI:
    """The HTTP surface over them, the console included, once its figures were read."""
    return read_once(build_app(engine, world.books, replays, default_max_tokens=64, max_tokens_cap=100))


@pytest.fixture
def nobody(app: FastAPI) -> Iterator[TestClient]:
    """A browser in which nobody signed in; it follows no redirect."""
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as browser:
        yield browser


@pytest.fixture
def sign_in(app: FastAPI, world: World) -> Iterator[SignIn]:
    """A function from a role, or a key, to a browser that has signed in with it; it follows no redirect."""
    with ExitStack() as stack:

        def signed_in(who: str) -> TestClient:
            browser = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
            stack.enter_context(browser)
            answer = browser.post("/console/sign-in", data={"key": world.keys.get(who, who)})
            assert answer.status_code == 303, answer.text
            return browser

        yield signed_in


def read_once(app: FastAPI) -> FastAPI:
    """The same app, when its console has read its figures: before that, pages say that they wait."""
    (mounted,) = (route.app for route in app.routes if isinstance(route, Mount) and route.path == "/console")
    first_read(mounted.state.figures)
    return app


def first_read(figures: Figures) -> FiguresSnapshot:
    """The reading of figures that were never read before."""
    return until(figures.now)


def token_of(browser: TestClient) -> str:
    """The form token of a browser's session, as any of its pages carries it."""
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', browser.get("/console/no-such-page").text)
    assert found is not None, "no form on the page"
    return found[1]
