"""The running service's console in a real browser: an operator settles a period, a member sees itself alone."""

import json
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from deployment.settings import pepper_of
from rewards import periods
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.console.browsing import browsing, chromium, files, links, sign_in, tab_to
from tests.end_to_end.service import Service, new_ledger, service
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow
QUESTIONS = ("What is the colour of the harbour bell?", "Who keeps the mountain library?")
POLICY = "currency: EUR\npool: 1000000\n"
OTHERS = re.compile(r"\b(bob|rider)\b", re.IGNORECASE)
GUESSES = (
    *("clients/{other}", "statements/first/{other}.json", "statements/first/{other}.html", "responses?client={other}"),
    *("trust/proof.json?response={response}&client={other}", "responses/{response}", "responses/{response}/proof"),
    *("holds", "periods/preview?name=second", "statements?client={other}", "trust/verify", "playground"),
)


@dataclass(frozen=True)
class Running:
    """A service whose texts are kept, with a member's key, and what it answered with each token's scores."""

    service: Service
    member: str
    answers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def running(real_bundle, tmp_path_factory):
    """A service that was asked two questions, with a policy to settle by."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "policy.yaml").write_text(POLICY)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PROTOKEN_TEXTS", str(folder / "texts"))
        environment.setenv("PROTOKEN_POLICY", str(folder / "policy.yaml"))
        with service(real_bundle, new_ledger(folder), folder / "serve.log") as up:
            with closing(KeyRing(up.ledger, pepper_of(up.ledger, folder / "pepper_file"))) as ring:
                member = ring.create("member", "ada's desk", actor="test", client="ada")
            yield Running(up, member, [ask(up, question) for question in QUESTIONS])


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests here."""
    with chromium() as browser:
        yield browser


def ask(up: Service, question: str) -> dict[str, Any]:
    """An answer with each token's scores."""
    body = {"model": "real", "messages": [{"role": "user", "content": question}], "max_tokens": 12, "temperature": 0}
    headers = {"Authorization": f"Bearer {up.application}"}
    asked = body | {"attribution": "tokens"}
    answer = httpx.post(f"{up.address}/v1/chat/completions", json=asked, headers=headers, timeout=PATIENCE_S)
    document: dict[str, Any] = answer.raise_for_status().json()
    return document


def overview(page: Page, tokens: int) -> dict[str, tuple[int, str]]:
    """Each account's credit and share as the overview shows them, once it has read so many tokens."""

    def together() -> dict[str, tuple[int, str]] | None:
        page.goto("/console/")
        table = page.get_by_role("region", name="Who earned the open period")
        rows = table.locator("tr:has(td.number)").all() if table.count() else []
        cells = [[row.locator("th").inner_text(), *row.locator("td.number").all_inner_texts()] for row in rows]
        shown = {name.split()[0].lower(): (micro(credit), share) for name, share, credit in cells}
        return shown if shown.get("together", (0, ""))[0] == tokens * 1_000_000 else None

    return until(together, what=lambda: f"{tokens} tokens in the overview:\n{page.inner_text('main')}")


def open_tokens(up: Service) -> int:
    """Tokens of the open period, by the API."""
    headers = {"Authorization": f"Bearer {up.operator}"}
    return int(httpx.get(f"{up.address}/api/v1/shares", headers=headers, timeout=PATIENCE_S).json()["tokens"])


def micro(credit: str) -> int:
    """Credit as a page writes it, in micro-credits."""
    return int(Decimal(credit.replace(",", "").replace("−", "-")) * 1_000_000)


def test_an_operator_settles_a_period(running, browser: Browser, tmp_path: Path) -> None:
    """Shares, heat map, close and statement, as the ledger, the API and the public key have them."""
    ledger = Ledger(running.service.ledger)
    with browsing(browser, running.service.address, accept_downloads=True) as (page, watch):
        sign_in(page, watch, running.service.operator)
        shown = overview(page, ledger.tokens())
        together = shown.pop("together")
        assert ledger.balances() == {account: credit for account, (credit, _) in shown.items()}
        for credit, share in shown.values():
            assert f"{100 * credit / together[0]:.1f} %" == share or share == "< 0.1 %"
        watch.settle(page)

        answer = running.answers[0]
        page.get_by_role("link", name="Responses").click()
        page.get_by_role("link", name=answer["id"]).click()
        hovered_shows_scores(page, answer["choices"][0]["message"]["attribution"]["content"])
        watch.settle(page)

        page.get_by_role("link", name="Periods", exact=True).click()
        page.get_by_label("Name").fill("first")
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_role("heading", name="Preview of first", exact=True)).to_be_visible()
        assert not periods.all(ledger)
        page.get_by_label("Type first to confirm").fill("first")
        page.get_by_role("button", name="Close it").click()
        expect(page.get_by_role("heading", name="Period first")).to_be_visible()
        (closed,) = periods.all(ledger)
        assert ("first", "final") == (closed.name, closed.state)
        paid = {line.account: line.payout for line in closed.settlement.lines}
        assert 1_000_000 == sum(paid.values())
        watch.settle(page)

        verified_offline(page, running.service, tmp_path)
        page.get_by_role("button", name="Sign out").click()
        page.goto("/console/periods")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def hovered_shows_scores(page: Page, content: list[dict[str, Any]]) -> None:
    """Each token that is pointed at shows the scores that the application was told."""
    tokens, panel = page.get_by_role("option"), page.locator(".heatmap-panel")
    expect(tokens).to_have_count(len(content))
    for place, token in enumerate(content):
        tokens.nth(place).hover()
        expect(panel).to_contain_text(f"Token {place + 1} of {len(content)}")
        told = " ".join(panel.inner_text().split())
        for each in token["clients"]:
            assert f"{each['client']} {each['score']:+.3f}".replace("-", "−") in told


def verified_offline(page: Page, up: Service, folder: Path) -> None:
    """A statement is taken away in the browser, and holds by the public key alone."""
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Statements").click()
    expect(page.get_by_role("heading", name="Statements", level=1)).to_be_visible()
    statement = "/console/statements/first/ada.json"
    until(lambda: page.request.get(statement).status != 503, what="the seal of the period that was closed")
    with page.expect_download() as taken:
        page.locator('a[href$="/statements/first/ada.json"]').first.click()
    taken.value.save_as(folder / "ada.json")
    with page.expect_download() as taken:
        page.get_by_role("link", name="The keys as a file").click()
    taken.value.save_as(folder / "mine.pub")
    command = [sys.executable, "-m", "deployment.cli", "statement", "verify", str(folder / "ada.json")]
    command += ["--public-key", str(folder / "mine.pub")]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, 5) == (verified.returncode, verified.stdout.count("✓")), verified.stderr
    headers = {"Authorization": f"Bearer {up.operator}"}
    of_the_api = httpx.get(f"{up.address}/api/v1/statements/first/ada", headers=headers, timeout=PATIENCE_S).json()
    taken_away = json.loads((folder / "ada.json").read_text())
    for grown in ("log", "signature"):  # it is proven anew by the latest checkpoint whenever it is asked for
        del of_the_api[grown], taken_away[grown]
    assert of_the_api == taken_away


def test_a_member_sees_itself_alone(running, browser: Browser) -> None:
    """No answer that a member's browser gets names another member, whatever address it guesses."""
    response = running.answers[1]["id"]
    with browsing(browser, running.service.address) as (page, watch):
        sign_in(page, watch, running.member)
        waiting, seen, taken = ["/console/"], set(), set()
        while waiting:
            path = waiting.pop()
            if path not in seen:
                seen.add(path)
                page.goto(path)
                assert OTHERS.search(page.inner_text("body")) is None
                watch.settle(page)
                waiting += links(page)
                taken |= set(files(page))
        told = [(path, page.request.get(path).text()) for path in taken]
        for guess in GUESSES:
            real, invented = (answer_to(page, guess, other, response) for other in ("bob", "nobody"))
            assert invented == real, f"{guess} tells who is a member"
        for path in ("credit", "clients", "statements/first/bob", "receipts", f"receipts/{response}"):
            assert 401 == page.request.get(f"{running.service.address}/api/v1/{path}").status

    told += [(url, body) for url, _, body in watch.answers]
    assert len(seen) >= 10, seen
    assert {".json", ".html", ".csv"} <= {Path(path).suffix for path in (*seen, *taken)}
    assert len(watch.answers) >= len(seen)
    assert [] == watch.unread
    assert any("ada" in body for _, body in told)
    assert [] == [(url, found[0]) for url, body in told if (found := OTHERS.search(body))]


def answer_to(page: Page, guess: str, other: str, response: str) -> tuple[int, str]:
    """Status and body of a guessed address, without the name that was guessed and the request's own id."""
    answer = page.request.get(f"/console/{guess.format(other=other, response=response)}")
    return answer.status, re.sub(f"{other}|Request <code>[^<]+", "…", answer.text())


def test_an_operator_needs_no_mouse(running, browser: Browser) -> None:
    """From the sign-in over a heat map to a closed period by the keyboard, and the focus is seen at every step."""
    answer = ask(running.service, QUESTIONS[0])
    with browsing(browser, running.service.address) as (page, watch):
        keys = page.keyboard
        page.goto("/console/")
        expect(page.get_by_label("Your key")).to_be_focused()  # from the start, but not before the page has loaded
        watch.settle(page)
        keys.type(running.service.operator)
        keys.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        overview(page, open_tokens(running.service))
        follow(page, watch, "a Responses")
        follow(page, watch, f"a {answer['id']}")
        tab_to(page, page.get_by_role("option").first.get_attribute("aria-label"))
        keys.press("ArrowRight")
        expect(page.locator(".heatmap-panel")).to_contain_text("Token 2 of")
        follow(page, watch, "a Periods")
        tab_to(page, "input name")
        keys.press("Control+A")
        keys.type("second")
        keys.press("Enter")
        expect(page.get_by_role("heading", name="Preview of second", exact=True)).to_be_visible()
        tab_to(page, "input typed")
        keys.type("second")
        follow(page, watch, "button Close it")
        expect(page.get_by_role("heading", name="Period second")).to_be_visible()
        follow(page, watch, "button Sign out")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()

    assert ["first", "second"] == [period.name for period in periods.all(Ledger(running.service.ledger))]


def follow(page: Page, watch, name: str) -> None:
    """Go to a link or a button with Tab and press Enter there."""
    watch.settle(page)
    tab_to(page, name)
    with page.expect_navigation():
        page.keyboard.press("Enter")
