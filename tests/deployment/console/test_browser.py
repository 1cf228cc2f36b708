"""Every page in a real browser: for whom it is made, in light and dark, on a narrow screen, and without a mouse."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.deployment.console.browsing import (
    NARROW,
    WIDE,
    Watch,
    browsing,
    chromium,
    focus,
    is_scrolling_sideways,
    links,
    sign_in,
    tab_to,
    violations,
)
from tests.deployment.console.sites import CROWD, Site, crowd_site, world_site
from tests.deployment.gateway.engines import BASE_SHARE, SHARES
from tests.waiting import PATIENCE_S

DARK = ["color-contrast", "link-in-text-block"]
GUESSES = (
    *(
        "clients/clinic",
        "responses/clinic-alone",
        "responses/shared-one",
        "periods/second",
        "periods/second/explanation/clinic",
        "statements/first/clinic.json",
    ),
    *("statements/first/clinic.html", "trust/proof.json?response=shared-one&client=clinic", "holds", "playground"),
    *("periods/preview?name=third", "trust/verify", "clients?client=clinic", "responses?client=clinic"),
)
API = ("credit", "clients", "receipts", "shares", "entries?client=clinic", "statements/first/clinic", "keys", "events")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests here."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A console over books with something of everything."""
    with world_site(tmp_path_factory.mktemp("world")) as site:
        yield site


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A console over fifty clients."""
    with crowd_site(tmp_path_factory.mktemp("crowd")) as site:
        yield site


@contextmanager
def looking(browser: Browser, site: Site, role: str) -> Iterator[tuple[Page, Watch]]:
    """A page of whoever signed in with the role's key; the browser must have nothing to complain of at its end."""
    with browsing(browser, site.address) as (page, watch):
        sign_in(page, watch, site.world.keys[role])
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


def poor(page: Page) -> list[str]:
    """What is wrong with a page for somebody: by axe's rules in light and dark, and on a telephone."""
    page.emulate_media(color_scheme="light")
    found = violations(page)
    page.emulate_media(color_scheme="dark")
    found += [f"in the dark: {each}" for each in violations(page, DARK)]
    page.set_viewport_size(NARROW)
    if is_scrolling_sideways(page):
        found.append(f"{page.url} is wider than {NARROW['width']} pixels")
    page.set_viewport_size(WIDE)
    return found


@pytest.mark.parametrize("role", ["operator", "member", "application"])
def test_every_page_is_for_everybody(browser: Browser, site: Site, role: str) -> None:
    """No page has a serious breach of accessibility in light or dark, or is wider than a telephone."""
    found: list[str] = []
    with looking(browser, site, role) as (page, watch):
        own = [] if role == "member" else [f"/console/responses/{site.response_id}"]
        pages = walk(page, watch, ["/console/", *own], lambda: found.extend(poor(page)))
        found += [f"{url}: {status}" for url, status, _ in watch.answers if status >= 400]

    assert len(pages) >= {"application": 4}.get(role, 8), pages
    assert [] == found


@pytest.mark.parametrize("role", ["operator", "member"])
def test_fifty_clients_are_for_everybody_too(browser: Browser, crowded: Site, role: str) -> None:
    """Many clients, and names that are long, short, foreign or look like HTML, break no page."""
    found: list[str] = []
    with looking(browser, crowded, role) as (page, watch):
        for path in ("", "clients", "periods/2026-10", f"responses/{crowded.response_id}"):
            page.goto(f"/console/{path}")
            watch.settle(page)
            found += poor(page)
        page.goto("/console/")
        if role == "operator":
            rows = page.get_by_role("region", name="Who earned the open period").locator("tbody tr")
            assert CROWD == rows.count()
            expect(rows.filter(has_text="<b>Bold & Söhne</b>")).to_have_count(1)

    assert [] == found


def test_errors_are_for_everybody(browser: Browser, site: Site) -> None:
    """A refused key, a page that is not there, and one that is not for this role say so on pages like any other."""
    with browsing(browser, site.address) as (page, _watch):
        page.goto("/console/periods")
        page.get_by_label("Your key").fill("ptk_000000000000_wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        found = poor(page)
        page.get_by_label("Your key").fill(site.world.keys["member"])
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/periods")
        for path, status in (("/console/nowhere", 404), ("/console/holds", 403), ("/console/responses/none", 404)):
            answer = page.goto(path)
            assert answer is not None
            assert status == answer.status
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            found += poor(page)

    assert [] == found


def test_a_member_is_told_nothing_of_others(browser: Browser, site: Site) -> None:
    """Nothing that the browser gets on any page, or by guessing at addresses, tells of other clients."""
    secrets = site.world.secrets
    with looking(browser, site, "member") as (page, watch):
        pages = walk(page, watch, ["/console/"], lambda: None)
        bodies = [(url, body.replace("label of member", "")) for url, _, body in watch.answers]
        for guess in GUESSES:
            page.goto(f"/console/{guess}")
            watch.settle(page)
        guessed = [(url, body.replace("label of member", "")) for url, _, body in watch.answers[len(bodies) :]]
        for path in API:
            assert 401 == page.request.get(f"{site.address}/api/v1/{path}").status, path

    assert len(pages) >= 8
    assert len(bodies) >= len(pages)
    assert [] == watch.unread
    assert [] == [(url, secret) for url, body in bodies for secret in secrets if secret in body]
    # What was asked for may be said again, if what it stands for is not told.
    others = [secret for secret in secrets if secret not in {"clinic", "Clinic"}]
    assert len(guessed) >= len(GUESSES)
    assert [] == [(url, secret) for url, body in guessed for secret in others if secret in body]
    assert "bank" in "".join(body for _, body in bodies)


def test_the_focus_is_always_seen(browser: Browser, site: Site) -> None:
    """Whatever Tab comes to on any page is marked, within the window, and the first stop leads to the content."""
    with looking(browser, site, "operator") as (page, watch):

        def see() -> None:
            if page.url.endswith(".html"):
                return  # a statement, to print
            page.keyboard.press("Tab")
            assert focus(page).name == "a Skip to the content"
            stops = [focus(page)]
            while stops[-1].name and len(stops) < 60:
                page.keyboard.press("Tab")
                stops.append(focus(page))
            assert [] == [(page.url, stop.name) for stop in stops if stop.name and not stop.is_shown]

        walk(page, watch, ["/console/", f"/console/responses/{site.response_id}"], see)


def test_the_heat_map_tells_a_token_s_scores_to_mouse_and_keyboard(browser: Browser, site: Site) -> None:
    """Pointing at a token, or going there by keys, shows what the API told of it."""
    with looking(browser, site, "operator") as (page, _watch):
        page.goto(f"/console/responses/{site.response_id}")
        panel = page.locator(".heatmap-panel")
        page.get_by_role("option").nth(2).hover()
        expect(panel).to_contain_text("Token 3 of 3")
        expect(panel).to_contain_text("“Gott”")
        told = panel.inner_text()
        for client, share in SHARES.items():
            assert f"{client} +{2 * share:.3f} {100 * share:.1f} %" in " ".join(told.split())
        assert f"{100 * BASE_SHARE:.1f} % commons" in told
        page.mouse.move(0, 0)
        tab_to(page, "Gott: clinic, 75.0 % taught")
        page.keyboard.press("Home")
        expect(panel).to_contain_text("Token 1 of 3")
        page.keyboard.press("End")
        expect(panel).to_contain_text("Token 3 of 3")
        assert told == panel.inner_text()
        page.keyboard.press("ArrowLeft")
        expect(panel).to_contain_text("Token 2 of 3")


def test_the_playground_streams_an_answer_and_colours_it(browser: Browser, site: Site) -> None:
    """An application asks, reads the answer, sees whose each token is, and comes to the receipt."""
    with looking(browser, site, "application") as (page, watch):
        page.get_by_role("textbox", name="Question").fill("hello")
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.get_by_role("option")).to_have_count(3)
        page.get_by_role("option").nth(0).hover()
        expect(page.locator(".heatmap-panel")).to_contain_text("“Grüß”")
        found = poor(page)
        watch.settle(page)

    assert [] == found


def test_pages_do_without_javascript(browser: Browser, site: Site) -> None:
    """Without scripts one can sign in, read a response's tokens as a table, and preview a period."""
    with browsing(browser, site.address, java_script_enabled=False) as (page, _watch):
        page.goto("/console/sign-in")
        page.get_by_label("Your key").fill(site.world.keys["operator"])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.goto(f"/console/responses/{site.response_id}")
        page.get_by_text("Every token as a table").click()
        expect(page.get_by_role("region", name="Tokens").get_by_role("row")).to_have_count(4)
        page.goto("/console/periods/preview?name=second")
        expect(page.get_by_role("heading", name="Preview of second")).to_be_visible()


def test_a_cookie_opens_nothing_but_the_console(browser: Browser, site: Site) -> None:
    """Whoever signed in to the console has not signed in to the APIs, and no other site can use the session."""
    with looking(browser, site, "operator") as (page, _watch):
        (cookie,) = [each for each in page.context.cookies() if each["name"] == "protoken_session"]
        assert ("/console", True, "Strict") == (cookie["path"], cookie["httpOnly"], cookie["sameSite"])
        for path in ("/api/v1/credit", "/v1/models", "/api/v1/keys"):
            assert 401 == page.request.get(site.address + path).status
    headers = {"Cookie": f"protoken_session={cookie['value']}", "Origin": "http://elsewhere.example"}
    answer = httpx.post(f"{site.address}/console/sign-out", headers=headers, timeout=PATIENCE_S)
    assert 403 == answer.status_code
