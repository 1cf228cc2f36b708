"""A real Chromium that tests look at pages with: started, signed in, and watched."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, expect, sync_playwright

from tests.waiting import PATIENCE_S
from tests.wanted import program

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 360, "height": 740}
_AXE = Axe()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; without it a test is skipped by name, but fails in CI."""
    path = program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        expect.set_options(timeout=PATIENCE_S * 1000)
        yield browser
        browser.close()


@dataclass
class Watch:
    """What a browser asked for and was told, and whatever it complained of.

    Attributes:
        host: the only one that pages may ask, as in "127.0.0.1:8000".
        answers: address, status and body of each answer; of a redirect the body is its `Location`, and nothing of a
            static file, which is the same for everybody.
        unread: addresses of answers whose page was left before their body could be read.
        complaints: errors in the browser's log, breaches of the content policy, and requests to other hosts.
    """

    host: str
    answers: list[tuple[str, int, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _under_way: int = 0

    def over(self, context: BrowserContext) -> Self:
        """Watch every page of a context from now on."""
        context.on("console", self._logged)
        context.on("weberror", lambda error: self.complaints.append(f"{error.page and error.page.url}: {error.error}"))
        context.on("request", self._asked)
        context.on("requestfinished", self._answered)
        context.on("requestfailed", self._failed)
        return self

    def settle(self, page: Page) -> None:
        """Wait until every request has its answer, whose body was read: the browser forgets it with the page."""
        while self._under_way:
            page.wait_for_timeout(5)

    def _logged(self, message: ConsoleMessage) -> None:
        # A page that answers 4xx on purpose is an error to the browser's log; its status is the tests' business.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.complaints.append(f"{message.page and message.page.url}: {message.text}")

    def _asked(self, request: Request) -> None:
        self._under_way += 1
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.netloc != self.host:
            self.complaints.append(f"asked {request.url}")

    def _answered(self, request: Request) -> None:
        response = request.response()
        assert response is not None, request.url
        try:
            body = response.headers.get("location", "")
            if not body and "/static/" not in request.url:
                body = response.text()
            self.answers.append((request.url, response.status, body))
        except Error:
            self.unread.append(request.url)
        finally:
            self._under_way -= 1

    def _failed(self, request: Request) -> None:
        self._under_way -= 1
        if request.failure != "net::ERR_ABORTED":  # a download, or a page that was left
            self.complaints.append(f"{request.url} failed: {request.failure}")


@contextmanager
def browsing(browser: Browser, address: str, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """A page in a browser without a past, which must have nothing to complain of at the end.

    Args:
        browser: the Chromium.
        address: of the service, without a path; what pages are opened relative to.
        options: of Playwright's `new_context`.
    """
    context = browser.new_context(base_url=address, **{"viewport": WIDE, **options})
    context.set_default_timeout(PATIENCE_S * 1000)
    watch = Watch(urlsplit(address).netloc).over(context)
    page = context.new_page()
    try:
        yield page, watch
        watch.settle(page)
    finally:
        context.close()
    assert watch.complaints == [], watch.complaints


def sign_in(page: Page, watch: Watch, key: str) -> None:
    """Sign in as a person does, and come to the first page."""
    page.goto("/console/sign-in")
    watch.settle(page)
    page.get_by_label("Your key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/sign-in" not in url)
    watch.settle(page)


def links(page: Page) -> list[str]:
    """Paths with query of the console's pages that a page leads to."""
    return [path for path in _leads_to(page, ":not([download])") if not _is_file(path)]


def files(page: Page) -> list[str]:
    """Paths with query of what can be taken away from a page."""
    return [*_leads_to(page, "[download]"), *(path for path in _leads_to(page, ":not([download])") if _is_file(path))]


def _leads_to(page: Page, which: str) -> list[str]:
    parts = [urlsplit(each) for each in page.eval_on_selector_all(f"a[href]{which}", "all => all.map(a => a.href)")]
    host = urlsplit(page.url).netloc
    return [f"{part.path}?{part.query}" if part.query else part.path for part in parts if part.netloc == host]


def _is_file(path: str) -> bool:
    return urlsplit(path).path.endswith((".csv", ".json", ".pub"))


def violations(page: Page, rules: Sequence[str] = ()) -> list[str]:
    """What axe finds on a page that is serious or critical; all rules, or only some.

    Args:
        page: as it is shown now.
        rules: ids of axe's rules; none stands for all of them.
    """
    options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
    found = _AXE.run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [
        f"{urlsplit(page.url).path}: {each['id']} ({each['impact']}): {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def is_scrolling_sideways(page: Page) -> bool:
    """Whether the page itself is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


@dataclass(frozen=True)
class Focus:
    """The element that has the focus.

    Attributes:
        name: its tag and what it says; empty for the page itself.
        is_shown: whether the browser draws an outline or a shadow around it, within the window.
    """

    name: str
    is_shown: bool


def focus(page: Page) -> Focus:
    """Where the keyboard is."""
    return Focus(
        *page.evaluate(
            """() => {
                const element = document.activeElement;
                if (!element || element === document.body) return ["", false];
                const style = getComputedStyle(element), box = element.getBoundingClientRect();
                const isWithin = !element.matches(":focus");  // in a part of a date field, which is marked by itself
                const hasRing = isWithin || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1)
                    || style.boxShadow !== "none";
                const isSeen = box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
                const said = element.getAttribute("aria-label") || element.innerText || element.name || element.id;
                return [`${element.localName} ${said.trim().slice(0, 60)}`, hasRing && isSeen];
            }"""
        )
    )


def tab_to(page: Page, name: str, most: int = 150) -> None:
    """Press Tab until something has the focus whose name ends like this; it must be seen at every step."""
    for _ in range(most):
        page.keyboard.press("Tab")
        at = focus(page)
        assert at.is_shown or not at.name, f"the focus is not seen on {at.name!r} of {page.url}"
        if at.name.endswith(name):
            return
    raise AssertionError(f"the keyboard does not come to {name!r} on {page.url}")
