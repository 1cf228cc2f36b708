"""The overview and the clients' pages: who earned what, at a glance, and what to do where there is nothing yet."""

import asyncio
import re
from collections.abc import Callable
from html import unescape

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.console.figures.snapshot import FRESH_S, Figures
from deployment.console.pages import overview
from deployment.console.rendering import credit
from deployment.retention.replays import Replays
from rewards.credit import Receipt, receipt_amounts
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.views.contribution import Contribution
from tests.deployment.api.world import World
from tests.deployment.console.conftest import SignIn, first_read, read_once
from tests.deployment.console.test_access import console_of
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.outages import Clock, away

LONG = "The Association of Regional Municipal Waterworks, Section "  # with its number 60 characters


def plain(page: str) -> str:
    """What a page says, without markup and in one line."""
    main = page[page.index("<main") : page.index("</main>")]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", re.sub(r'<span class="fine">|</span>', "", main))).split())


def test_an_operator_sees_the_open_period(sign_in: SignIn) -> None:
    """Who earned which part of it, the commons apart, and the sum."""
    page = plain(sign_in("operator").get("/console/").text)

    assert "The period after second is open since 20" in page
    assert "A clinic 85.0 % 1.699963 A bank 15.0 % 0.300007" in page
    assert "Commons what no client earned < 0.1 % 0.000030 Together 100.0 % 2.000000" in page
    assert "Responses 6 booked in all, 1 reversed" in page
    assert "Last closed period second ◌ draft" in page


def test_clients_without_credit_are_in_the_list_too(sign_in: SignIn) -> None:
    """A port that earned nothing is seen to have earned nothing."""
    page = plain(sign_in("auditor").get("/console/").text)

    assert "A port 0.0 % 0.000000 Commons" in page


def test_a_member_sees_its_own_overview(sign_in: SignIn) -> None:
    """Its share, its credit of now and of all time, and its statements to take away."""
    answer = sign_in("member").get("/console/")
    page = plain(answer.text)

    assert "Your share of the open period 15.0 %" in page
    assert "Your credit in the open period 0.300007" in page
    assert "Your credit in all 2.934562" in page
    assert 'href="/console/statements/first/bank.json"' in answer.text


def test_the_chart_is_also_a_table(sign_in: SignIn) -> None:
    """With the same figures, which sum to the credit of all time."""
    page = sign_in("operator").get("/console/").text
    table = page[page.index('aria-label="Credit over time as a table"') :]
    table = table[: table.index("</table>")]
    rows = [re.findall(r'<td class="number">(.*?)</td>', row) for row in table.split("<tr>")[2:]]
    amounts = [[float(re.sub(r"<.*?>|,", "", cell).replace("−", "-")) for cell in row] for row in rows]

    names = re.findall(r'<th scope="col" class="number">(.*?)</th>', table)
    sums = {name: round(sum(column), 6) for name, column in zip(names, zip(*amounts, strict=True), strict=True)}
    assert {"A clinic": 8.065330, "A bank": 2.934562, "Commons": 0.000108} == sums
    assert f'<desc id="trend-desc">{"; ".join(f"{name} " for name in names)[:8]}' in page


def test_health_tells_what_is_wrong(sign_in: SignIn, engine: ScriptedEngine, world: World) -> None:
    """A model that does not answer is a state with its reason, and the page is there all the same."""
    browser = sign_in("operator")
    well = plain(browser.get("/console/").text)
    engine.down = True
    ill = plain(browser.get("/console/").text)

    assert "Ledger readable" in well
    assert "Model answers 1 replica running" in well
    assert re.search(r"Last checkpoint (just now|\d+ \w+ ago) , over \d+ rows", well)
    assert re.search(r"Not sealed yet \d+ rows?", well)
    assert "Model does not answer no replica of the model answers" in ill


def test_a_model_that_never_answers_holds_no_page_up(
    sign_in: SignIn, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page comes after its patience, with that as the reason."""

    async def never(_name: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(overview, "PATIENCE_S", 0.01)
    monkeypatch.setattr(engine, "check", never)

    assert "Model does not answer no replica answers within 0.01 second" in plain(
        sign_in("operator").get("/console/").text
    )


@pytest.mark.parametrize("table", ["receipts", "events"])
def test_a_ledger_that_is_away_leaves_the_figures_of_then(
    app: FastAPI, sign_in: SignIn, world: World, table: str
) -> None:
    """With a banner that says since when, on every page with figures, for everybody."""
    clock, operator, member = Clock(), sign_in("operator"), sign_in("member")
    figures = console_of(app).state.figures = Figures(world.books.ledger, clock)
    first_read(figures)
    assert [200, 200] == [browser.get("/console/").status_code for browser in (operator, member)]
    clock.now += FRESH_S
    with away(world.books.ledger.database, table):
        pages = [
            plain(browser.get(path).text)
            for browser in (operator, member)
            for path in ("/console/", "/console/clients", "/console/clients/bank")
        ]

    for page in pages:
        assert re.search(r"The ledger cannot be read since .* UTC . What you see is how things stood at", page)
        assert "0.300007" in page


def test_until_the_first_reading_has_ended_a_page_looks_again(
    app: FastAPI, sign_in: SignIn, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of hanging it says so, and refreshes itself."""
    monkeypatch.setattr(Figures, "now", lambda _self: None)
    browser = sign_in("operator")

    for path in ("/console/", "/console/clients", "/console/clients/bank"):
        page = browser.get(path).text
        assert '<meta http-equiv="refresh" content="2">' in page
        assert "are being added up" in page


def test_a_member_that_was_registered_since_the_last_reading_is_shown_soon(sign_in: SignIn, world: World) -> None:
    """Its first page looks again by itself, and is no failure."""
    assert 200 == sign_in("operator").get("/console/").status_code
    world.books.ledger.register("harbour", {"ferry": "A ferry"})
    ferry = sign_in(world.books.keys.create("member", "ferry's desk", actor="test", client="ferry"))
    answer = ferry.get("/console/")

    assert (200, True) == (answer.status_code, "are being added up" in answer.text or "A ferry" in answer.text)


def test_the_clients_are_listed_by_what_they_earned(sign_in: SignIn) -> None:
    """With their ids, consortia, credit of all time and of the open period, and a line over time."""
    answer = sign_in("operator").get("/console/clients")
    page = plain(answer.text)

    assert "3 clients, by credit of the open period." in page
    assert "A clinic clinic hospital-net 8.065330 1.699963 85.0 % A bank bank hospital-net, harbour 2.934562" in page
    assert 3 == answer.text.count('<svg class="spark"')


def test_one_client_s_page_has_its_money(sign_in: SignIn) -> None:
    """Payouts by period with their states, statements of final ones, and the holds that stop them."""
    answer = sign_in("operator").get("/console/clients/clinic")
    page = plain(answer.text)

    assert "A clinic clinic of hospital-net" in page
    assert re.search(r"second . (disputed|draft) 0\.599971 .* EUR .* EUR .* EUR when it is final", page)
    assert re.search(r"first . final 5.765396", page)
    assert 'href="/console/statements/first/clinic.html"' in answer.text
    assert "hold-1 active" in page
    assert "a secret reason to hold" in page


def test_a_member_s_own_page_has_no_holds(sign_in: SignIn, ledger: Ledger) -> None:
    """As the operator API tells it of none."""
    page = plain(sign_in("member").get("/console/clients/bank").text)

    assert "hospital-net 26.7 % 2.934562" in page
    assert "Holds" not in page


@pytest.fixture
def empty(engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, replays: Replays) -> Callable[[str], TestClient]:
    """A function from a role to a browser that has signed in to a console over a ledger without a receipt."""

    def signed_in(role: str) -> TestClient:
        # Reads the ledger as it is now.
        app = read_once(build_app(engine, Books(ledger, keys), replays, default_max_tokens=64))
        browser = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
        key = keys.create(role, role, actor="test", client="bank" if role == "member" else None)
        assert 303 == browser.post("/console/sign-in", data={"key": key}).status_code
        return browser

    return signed_in


def test_an_empty_ledger_says_what_to_do_next(empty: Callable[[str], TestClient]) -> None:
    """Each page without figures says when there will be some."""
    operator, member = empty("operator"), empty("member")
    first = plain(operator.get("/console/").text)

    assert "The first period is open; no period was closed yet." in first
    assert "Shares appear with the first response" in first
    assert "The chart begins with the first response." in first
    assert "Last checkpoint none yet" in first
    one = plain(operator.get("/console/clients/bank").text)
    assert "No model of hospital-net, harbour has answered yet." in one
    assert "No period with credit of this client is closed yet. Close one to pay by it." in one
    own = plain(member.get("/console/").text)
    assert "You have no credit yet." in own
    assert "No period is final yet." in own


def test_many_clients_with_long_names_fit(empty: Callable[[str], TestClient], ledger: Ledger) -> None:
    """Fifty rows, their sums still in sight, and a chart with the largest and one series for the others."""
    names = {f"client-{number:02}": f"{LONG}{number:02}" for number in range(50)}
    ledger.register(CARD.name, names)
    shares = {client: (number + 1) / 2000 for number, client in enumerate(names)}
    amounts = receipt_amounts("r", 1000, shares, 1 - sum(shares.values()))
    ledger.append(
        Receipt("r", 1, "shop", CARD.name, CARD.global_sha256, "credit", {}, "1", 1000, amounts, {}, duration_us=1)
    )
    page = empty("operator").get("/console/").text

    assert 50 == len({name for name in names.values() if page.count(name)})
    assert 'class="scroll tall"' in page
    assert "42 others" in page
    assert overview.DRAWN + 2 == len(re.findall('<svg class="key"', page))
    assert credit(amounts["client-49"]) == "25.00"


def test_texts_of_the_ledger_stay_texts(empty: Callable[[str], TestClient], ledger: Ledger) -> None:
    """A client may be called what it likes, and have an id of signs: pages and links hold."""
    client = "a&b \"c' <d>?#%"
    ledger.register(CARD.name, {client: "<script>alert(1)</script>"})
    operator = empty("operator")
    page = operator.get("/console/clients").text
    (address,) = re.findall(r'<a href="(/console/clients/a[^"]*)">', page)
    own = operator.get(unescape(address))

    assert "<script>alert" not in page + own.text
    assert (200, True) == (own.status_code, "&lt;script&gt;alert(1)&lt;/script&gt;</h1>" in own.text)


def test_reading_a_page_reads_no_whole_ledger(sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the last reading is fresh, a page adds up nothing."""
    browser = sign_in("operator")
    browser.get("/console/")
    monkeypatch.setattr(Contribution, "catch_up", lambda _self: pytest.fail("it was added up again"))

    assert [200, 200] == [browser.get(path).status_code for path in ("/console/", "/console/clients")]
