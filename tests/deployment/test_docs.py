"""`/`, `/docs` and its files: where browsers are led, what programs are told, and Swagger UI in a real browser."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from deployment.access.permissions import OPEN_ROUTES
from tests.deployment.console.browsing import browsing, chromium
from tests.deployment.console.sites import world_site

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
OPERATIONS = ".opblock"


@pytest.fixture
def anybody(app: FastAPI) -> Iterator[TestClient]:
    """A caller without a key that follows no redirect."""
    with TestClient(app, follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_browser_is_led_to_the_console(anybody: TestClient, method: str) -> None:
    """`/` sends whoever wants a page to the console, by an address that holds behind any proxy."""
    answer = anybody.request(method, "/", headers={"Accept": BROWSER})

    assert (307, "/console/") == (answer.status_code, answer.headers["location"])
    assert "Accept" == answer.headers["vary"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_program_is_told_where_to_go(anybody: TestClient, accept: str) -> None:
    """An API client, or a probe with the wrong path, gets 404 in OpenAI's shape, and is not taken for well."""
    answer = anybody.get("/", headers={"Accept": accept})

    assert 404 == answer.status_code
    assert "unknown_route" == answer.json()["error"]["code"]
    for place in ("/docs", "/openapi.json", "/health", "/console/"):
        assert place in answer.json()["error"]["message"]
    assert 401 == anybody.post("/", json={}).status_code


def test_the_page_loads_what_is_open_and_nothing_else(anybody: TestClient) -> None:
    """Each address on the page is one that everybody may read; styles and scripts bear the hash of what they hold."""
    page = anybody.get("/docs")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    static = [f"/{each}" for each in named if each.startswith("docs/static/")]

    assert {path for _, path in OPEN_ROUTES if path.startswith("/docs/static/")} == {
        each.partition("?")[0] for each in static
    }
    assert not re.search(r"<script>|<style|style=|//", page.text)
    assert "no-store" == page.headers["cache-control"]
    for address in static:
        answer = anybody.get(address)
        assert (200, "public, max-age=31536000, immutable") == (answer.status_code, answer.headers["cache-control"])
        assert answer.headers["content-type"].split(";")[0] in {"text/css", "text/javascript", "application/javascript"}
    assert "no-store" == anybody.get("/docs/static/start.js").headers["cache-control"]


def test_the_policy_of_the_page_lets_nothing_in(anybody: TestClient) -> None:
    """No inline script, no eval, no other origin, and no frame around it: as for every page of the console."""
    policy = anybody.get("/docs").headers["content-security-policy"]

    assert anybody.get("/console/sign-in").headers["content-security-policy"] == policy
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, dict[str, str]]]:
    """The page in a Chromium that may complain of nothing, and a key of each role."""
    with (
        world_site(tmp_path_factory.mktemp("docs")) as site,
        chromium() as browser,
        browsing(browser, site.address) as (page, watch),
    ):
        page.goto("/docs")
        expect(page.locator(OPERATIONS).first).to_be_attached()
        watch.settle(page)
        yield page, site.world.keys


def test_every_call_is_shown(shown: tuple[Page, dict[str, str]], app: FastAPI) -> None:
    """Each operation of the document is on the page."""
    page, _keys = shown

    expect(page.locator(OPERATIONS)).to_have_count(sum(len(item) for item in app.openapi()["paths"].values()))


def test_a_call_is_tried_out_with_a_key(shown: tuple[Page, dict[str, str]]) -> None:
    """Authorize takes a bearer key; with it a call that was refused before is answered."""
    page, keys = shown
    call = page.locator("[id$=credit_api_v1_credit_get]")
    answered = call.locator(".live-responses-table tbody")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    call.get_by_role("button", name="Execute").click()
    expect(answered).to_contain_text("missing_api_key")
    page.locator(".scheme-container").get_by_role("button", name="Authorize").click()
    page.locator("#auth-bearer-value").fill(keys["operator"])
    page.get_by_role("button", name="Apply credentials").click()
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Close").click()
    call.get_by_role("button", name="Execute").click()
    expect(answered).to_contain_text('"clinic"')
    expect(answered).not_to_contain_text("missing_api_key")


def test_a_key_is_forgotten_with_the_page(shown: tuple[Page, dict[str, str]]) -> None:
    """No key is left in the browser's storage, where another program of this origin could find it."""
    page, keys = shown
    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")

    assert keys["operator"] not in stored
    assert "ptk_" not in stored
