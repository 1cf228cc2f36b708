"""Every page in a real browser: for whom it is made, in light and dark, on a narrow screen, and without a mouse."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect

from deployment.ingress import build_app
from deployment.replays import Replays
from deployment.texts import Texts
from rewards import KeyRing, Ledger
from tests.deployment.conftest import CLIENTS, PEPPER
from tests.deployment.console.browsing import (
    NARROW,
    WIDE,
    Watch,
    browsing,
    chromium,
    focus_ring,
    is_scrolling_sideways,
    links,
    sign_in,
    violations,
)
from tests.deployment.engines import CARD, ScriptedEngine
from tests.deployment.operator.world import World, make_world


@dataclass(frozen=True)
class Site:
    """A console that listens, over books with something of everything; `response_id` has a heat map."""

    address: str
    world: World
    response_id: str


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests here."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The world's console on a real port, with texts kept."""
    folder = tmp_path_factory.mktemp("site")
    url = f"sqlite:///{folder}/ledger.db"
    Ledger.prepare(url)
    with closing(Ledger(url)) as ledger, closing(KeyRing(url, PEPPER)) as keys:
        ledger.register(CARD.name, CLIENTS)
        world = make_world(ledger, keys, folder)
        with listening(world, ScriptedEngine(ledger), folder) as address:
            yield Site(address, world, ask(address, world.keys["application"]))


@contextmanager
def listening(world: World, engine: ScriptedEngine, folder: Path) -> Iterator[str]:
    """The whole app over a world on a free port of loopback: its address."""
    replays, texts = Replays(folder / "replays", 60.0), Texts(folder / "texts", 3600.0)
    app: FastAPI = build_app(engine, world.books, replays, default_max_tokens=64, texts=texts)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def ask(address: str, key: str) -> str:
    """A response with the score of each token: its id."""
    body = {"model": CARD.name, "messages": [{"role": "user", "content": "hello"}], "attribution": "tokens"}
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{address}/v1/chat/completions", json=body, headers=headers, timeout=30)
    return str(answer.raise_for_status().json()["id"])


@contextmanager
def looking(browser: Browser, site: Site, role: str) -> Iterator[tuple[Page, Watch]]:
    """A page of whoever signed in with the role's key; the browser must have nothing to complain of at its end."""
    with browsing(browser, site.address) as (page, watch):
        sign_in(page, site.world.keys[role])
        watch.settle(page)
        yield page, watch


def walk(page: Page, watch: Watch, starts: list[str], see: Callable[[], None]) -> list[str]:
    """Go to one page of each kind that can be come to by links from `starts`, and call `see` on it: their paths."""
    waiting, seen = list(starts), {}
    while waiting:
        path = waiting.pop(0)
        if kind(path) not in seen:
            seen[kind(path)] = path
            page.goto(path)
            watch.settle(page)
            see()
            waiting += links(page)
    return list(seen.values())


def kind(path: str) -> str:
    """What pages have in common that show different things: all of the path but names and queries."""
    words = {"preview", "verify"}
    parts = urlsplit(path).path.rstrip("/").split("/")
    return "/".join(part if place < 3 or part in words else "*" for place, part in enumerate(parts))


@pytest.mark.parametrize("role", ["operator", "member", "application", "auditor"])
def test_every_page_is_for_everybody(browser: Browser, site: Site, role: str) -> None:
    """No page has a serious breach of accessibility in light or dark, or is wider than a telephone."""
    found: list[str] = []
    with looking(browser, site, role) as (page, watch):

        def see() -> None:
            page.emulate_media(color_scheme="light")
            found.extend(violations(page))
            page.emulate_media(color_scheme="dark")
            found.extend(f"dark: {each}" for each in violations(page, ["color-contrast", "link-in-text-block"]))
            page.set_viewport_size(NARROW)
            if is_scrolling_sideways(page):
                found.append(f"{page.url} is wider than {NARROW['width']} pixels")
            page.set_viewport_size(WIDE)

        own = [] if role == "member" else [f"/console/responses/{site.response_id}"]
        pages = walk(page, watch, ["/console/", *own], see)
        found += [f"{url}: {status}" for url, status, _ in watch.answers if status >= 400]

    assert len(pages) >= {"application": 4}.get(role, 8), pages
    assert [] == found
