"""Responses in the console: who sees which receipt, what a reversal asks for, and the heat map of a kept text."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.console.figures.heatmap import FEWEST_PARTS, LEVELS, MOST_PARTS, heat_map, twins
from deployment.console.rendering import COLOURS
from deployment.replica.messages import TokenCredit
from deployment.retention.replays import Replays
from deployment.retention.texts import KeptText, Texts
from rewards.credit import COMMONS
from tests.deployment.api.world import World, receipt
from tests.deployment.console.conftest import SignIn, read_once, token_of
from tests.deployment.gateway.engines import CARD, ScriptedEngine

READERS = ("operator", "auditor", "admin")
SHARED = "/console/responses/shared-three"


@pytest.fixture
def texts(tmp_path: Path) -> Texts:
    """An empty store of texts."""
    return Texts(tmp_path / "texts", 86_400.0)


@pytest.fixture
def app(engine: ScriptedEngine, world: World, replays: Replays, texts: Texts) -> FastAPI:
    """The HTTP surface of a service that keeps texts."""
    return read_once(build_app(engine, world.books, replays, default_max_tokens=64, max_tokens_cap=100, texts=texts))


@pytest.fixture
def shop(world: World) -> str:
    """The id of the application's key."""
    return world.keys["application"].split("_")[1]


def kept(response_id: str, application: str, pieces: tuple[str, ...], **changes: Any) -> KeptText:
    """A text with a part for each token: the bank on top of the first, the clinic of the second, nobody of others."""
    scores = [{"bank": 0.75, "clinic": -0.125}, {"bank": 0.25, "clinic": 1.5}] + [{"bank": -1.0, "clinic": 0.0}] * 99
    base = [0.3, 0.9] + [1.0] * 99
    tokens = tuple(
        TokenCredit(piece, n, {"bank": (1 - base[n]) / 2, "clinic": (1 - base[n]) / 2}, scores[n], base[n])
        for n, piece in enumerate(pieces)
    )
    whole = {"shares": {"bank": 0.2, "clinic": 0.2}, "base_share": 0.6}
    return KeptText(
        **{
            "response_id": response_id,
            "application": application,
            "model": CARD.name,
            "created_at_us": 1_700_000_000_000_000,
            "text": "".join(pieces),
            "tokens": tokens,
            **whole,
            **changes,
        }
    )


def tokens_of(page: str) -> list[tuple[str, str]]:
    """Class and text of each token of the heat map."""
    return [
        (kind, unescape(text))
        for kind, text in re.findall(r'<span class="token ([^"]*)" role="option"[^>]*>([^<]*)</span>', page)
    ]


def joined(page: str) -> str:
    """A page whose exact numbers are in one piece."""
    return re.sub(r'<span class="fine">(\d+)</span>', r"\1", page)


def absent(texts: tuple[str, ...], page: str) -> list[str]:
    """Those of some texts that are in a page all the same, also as numbers of tokens; its header names the viewer."""
    plain = re.sub(r"label of \w+</span>|,", "", joined(page))
    spelt = [f"{int(text) / 1e6:.6f}" if text.isdecimal() and len(text) == 7 else text for text in texts]
    return [text for text in spelt if text in plain]


@pytest.mark.parametrize("role", READERS)
def test_readers_see_the_latest_receipts_of_everybody(sign_in: SignIn, role: str) -> None:
    """The newest stands first; who earned most of it, who asked, and what was reversed are told."""
    page = sign_in(role).get("/console/responses")

    assert 200 == page.status_code
    shown = re.findall(r'<td class="id"><a href="/console/responses/([^"?]+)"', page.text)
    assert [
        *("shared-three", "reversal-clinic-again", "clinic-again", "shared-two"),
        *("bank-alone", "clinic-alone", "shared-one"),
    ] == shown
    assert page.text.index(">reversal<") < page.text.index(">reversed<") < page.text.index("bank-alone")


def test_an_application_sees_its_own_responses_alone(sign_in: SignIn, world: World) -> None:
    """What others asked for is not in the list, whatever the query says."""
    browser = sign_in("application")
    pages = [browser.get(f"/console/responses{query}").text for query in ("", "?application=", "?client=clinic")]

    for page in pages:
        assert ["shared-three", "bank-alone", "shared-one"] == re.findall(r"/console/responses/([a-z-]+)\"", page)
        assert [] == absent(("desk", "clinic-alone", "shared-two", "a secret reason"), page)


def test_a_member_sees_its_own_entries_alone(sign_in: SignIn, world: World) -> None:
    """A member's list has its credit of each response, and nothing of other clients, applications or keys."""
    page = sign_in("member").get("/console/responses?client=clinic").text

    assert ["shared-three", "shared-two", "bank-alone", "shared-one"] == re.findall(
        r"/console/responses/([a-z-]+)\"", page
    )
    assert "0.300007" in joined(page)
    assert "15.0 %" in page
    assert [] == absent(world.secrets, page)


def test_lists_are_narrowed_and_paged(sign_in: SignIn, world: World, shop: str) -> None:
    """A list may be narrowed to a client's or an application's, and goes on with older ones where it is long."""
    browser = sign_in("auditor")
    of_bank = browser.get("/console/responses?client=bank").text
    of_shop = browser.get(f"/console/responses?application={shop}").text
    assert ["shared-three", "shared-two", "bank-alone", "shared-one"] == re.findall(r"es/([a-z-]+)\"", of_bank)
    assert ["shared-three", "bank-alone", "shared-one"] == re.findall(r"es/([a-z-]+)\"", of_shop)

    world.books.ledger.append_many([receipt(f"more-{n}", shop, {"bank": 1_000_000}) for n in range(60)])
    first = browser.get(f"/console/responses?application={shop}").text
    older = re.search(r'href="(/console/responses\?cursor=[^"]+)">Older', first)
    assert older is not None
    second = browser.get(unescape(older[1])).text
    found = [re.findall(r'<td class="id"><a href="/console/responses/([^"?]+)"', page) for page in (first, second)]
    expected = [f"more-{n}" for n in range(59, -1, -1)] + ["shared-three", "bank-alone", "shared-one"]
    assert (50, expected) == (len(found[0]), found[0] + found[1])
    assert "Newest" in second
    assert "Older" not in second


@pytest.mark.parametrize(
    ("role", "response_id", "status"),
    [
        ("operator", "clinic-alone", 303),
        ("operator", " clinic-alone ", 303),
        ("operator", "nothing", 404),
        ("operator", "\0<u>", 404),
        ("application", "bank-alone", 303),
        ("application", "clinic-alone", 404),
        ("member", "shared-two", 303),
        ("member", "clinic-alone", 404),
    ],
)
def test_search_leads_to_a_response_that_one_may_see(sign_in: SignIn, role: str, response_id: str, status: int) -> None:
    """An id leads to its page; one that is not there, and one that is not the viewer's, are told alike."""
    answer = sign_in(role).get("/console/responses", params={"id": response_id})

    assert status == answer.status_code
    if status == 303:
        assert f"/console/responses/{response_id.strip()}" == answer.headers["location"]
    else:
        assert "<u>" not in answer.text
        assert 'id="not-found"' in answer.text


@pytest.mark.parametrize("role", READERS)
def test_readers_see_the_whole_receipt(sign_in: SignIn, world: World, role: str) -> None:
    """Hashes, method, settings and version, whose credit it is, and where it stands in the signed log."""
    booked = world.books.ledger.receipt("shared-three")
    assert booked is not None
    page = sign_in(role).get(SHARED).text

    for text in (booked.payload_sha256, booked.model_sha256, "credit, version 1", "<code>nodes</code> 2"):
        assert text in page
    assert ["1.699963", "0.300007", "0.000030"] == re.findall(r'<td class="number">(\d\.\d{6})</td>', joined(page))
    assert ["85.0 %", "15.0 %", "&lt; 0.1 %"] == re.findall(r'<td class="number">([^<]* %)</td>', page)
    assert re.search(r"leaf \d+ under the signed checkpoint of size \d+", page)
    assert ("Take its credit back" in page) == (role == "operator")


def test_a_receipt_that_is_not_sealed_yet_says_so(sign_in: SignIn, world: World, shop: str) -> None:
    """Between booking and the next seal there is no proof, and the page says what is missing."""
    world.books.ledger.append(receipt("fresh", shop, {"bank": 1_000_000}))
    pages = [sign_in(role).get("/console/responses/fresh").text for role in ("operator", "member")]

    assert all("not sealed yet" in page for page in pages)
    assert not any("/proof" in page for page in pages)


def test_reversal_and_reversed_lead_to_each_other(sign_in: SignIn) -> None:
    """A response that was taken back names its reversal, and the reversal what it takes back; neither offers more."""
    browser = sign_in("operator")
    taken, taking = (
        browser.get(f"/console/responses/{each}").text for each in ("clinic-again", "reversal-clinic-again")
    )

    assert 'href="/console/responses/reversal-clinic-again"' in taken
    assert 'href="/console/responses/clinic-again"' in taking
    assert "−2" in taking
    assert "A reversal has no text" in taking
    assert not any("Take its credit back" in page for page in (taken, taking))


def test_a_member_sees_its_own_entry_and_nothing_else(sign_in: SignIn, world: World, texts: Texts, shop: str) -> None:
    """Amount, share and proof of its own entry; no text, nobody else's score or name, and no application."""
    texts.keep(kept("shared-three", shop, ("a very private answer", " indeed")))
    browser = sign_in("member")
    page = browser.get(SHARED).text

    assert "0.300007" in joined(page)
    assert "15.0 %" in page
    assert f'href="{SHARED}/proof"' in page
    assert [] == absent((*world.secrets, "private", "indeed", shop), page)
    proof = browser.get(f"{SHARED}/proof")
    assert "attachment; filename*=UTF-8''shared-three.proof.json" == proof.headers["content-disposition"]
    entry = proof.json()["opening"]["entry"]
    assert ("bank", "300007") == (entry["account"], entry["amount"])
    assert [] == absent((*world.secrets, shop), proof.text)


@pytest.mark.parametrize(
    "path", ["clinic-alone", "clinic-again", "reversal-clinic-again", "nothing", "clinic-alone/proof", "nothing/proof"]
)
def test_what_gave_a_member_nothing_does_not_exist_for_it(sign_in: SignIn, world: World, path: str) -> None:
    """A response without an entry of the member's is 404 in the words of one that was never made."""
    browser = sign_in("member")
    answer, nothing = (browser.get(f"/console/responses/{each}") for each in (path, "never-made"))

    assert 404 == answer.status_code == nothing.status_code
    assert [] == absent(world.secrets, answer.text.replace(path.split("/", maxsplit=1)[0], ""))


def test_a_member_cannot_ask_for_another_clients_proof(sign_in: SignIn, world: World) -> None:
    """Naming another client in the address gives nothing."""
    answer = sign_in("member").get(f"{SHARED}/proof?client=clinic")
    assert 404 == answer.status_code
    assert [] == absent(world.secrets, answer.text.replace("clinic", "", 1))


@pytest.mark.parametrize("client", ["", "%00", "x" * 201])
def test_a_proof_of_what_is_no_client_s_name_is_a_bad_request(sign_in: SignIn, client: str) -> None:
    """Whoever may see all entries is told that it is none, and the service has not failed."""
    assert 400 == sign_in("auditor").get(f"{SHARED}/proof?client={client}").status_code


def test_readers_have_a_proof_for_each_client(sign_in: SignIn) -> None:
    """Whoever sees all may take the proof of any client's entry away."""
    entry = sign_in("auditor").get(f"{SHARED}/proof?client=clinic").json()["opening"]["entry"]
    assert ("clinic", "1699963") == (entry["account"], entry["amount"])


def test_an_application_sees_its_own_response_with_its_map(
    sign_in: SignIn, world: World, texts: Texts, shop: str
) -> None:
    """Text, tokens and credit of what it asked for itself, and no way to reverse it."""
    texts.keep(kept("shared-three", shop, ("Good", " day")))
    page = sign_in("application").get(SHARED).text

    assert [("text c1 l4", "Good"), ("text c0 l1", " day")] == tokens_of(page)
    assert "1.699963" in joined(page)
    assert "Take its credit back" not in page
    assert [] == absent(("desk", "a secret reason", "/proof"), page)


@pytest.mark.parametrize("response_id", ["clinic-alone", "shared-two", "nothing"])
def test_anothers_response_does_not_exist_for_an_application(
    sign_in: SignIn, texts: Texts, world: World, response_id: str
) -> None:
    """What another application asked for is 404, with nothing of its text or credit."""
    texts.keep(kept(response_id, "0123456789ab", ("a very private answer",)))
    answer = sign_in("application").get(f"/console/responses/{response_id}")

    assert 404 == answer.status_code
    assert [] == absent(("private", "599971", "2999983", "desk"), answer.text)


def test_a_response_on_its_way_to_the_ledger_is_told_to_who_asked_for_it(
    sign_in: SignIn, engine: ScriptedEngine, app: FastAPI, world: World
) -> None:
    """Where only the spool has the receipt yet, its application reads that it comes, and others that there is none."""
    engine.books = False
    asked = {"model": CARD.name, "prompt": "hello"}
    headers = {"Authorization": f"Bearer {world.keys['application']}"}
    made = TestClient(app).post("/v1/completions", json=asked, headers=headers).json()["id"]
    own, other = (sign_in(role).get(f"/console/responses/{made}") for role in ("application", "operator"))

    assert (404, 404) == (own.status_code, other.status_code)
    assert ("on its way" in own.text, "on its way" in other.text) == (True, False)


def test_heat_map_has_a_token_for_each_with_colour_and_strength(sign_in: SignIn, texts: Texts, shop: str) -> None:
    """Each token bears the class of the client with the highest score and the step of what was taught of it."""
    pieces = ("Good", " day", " to", "\n", "", "all <b>&")
    texts.keep(kept("shared-three", shop, pieces))
    page = sign_in("auditor").get(SHARED).text

    assert [
        ("text c1 l4", "Good"),
        ("text c0 l1", " day"),
        ("text commons l0", " to"),
        ("newline commons l0", "\n"),
        ("silent commons l0", ""),
        ("text commons l0", "all <b>&"),
    ] == tokens_of(page)
    assert 1 == page.count('role="option" aria-selected="false" tabindex="0"')
    assert "on top of 4 tokens" in page
    assert "+0.750" in page
    assert "−0.125" in page
    assert "70.0 %" in page
    assert "style=" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)


def test_text_that_a_stop_sequence_cut_is_told_from_its_tokens(sign_in: SignIn, texts: Texts, shop: str) -> None:
    """Where the application was sent less than was generated, the page says so and shows both."""
    texts.keep(kept("shared-three", shop, ("Good", " day", "END"), text="Good day"))
    page = sign_in("operator").get(SHARED).text

    assert "A stop sequence ended this text" in page
    assert re.search(r"<pre[^>]*>\nGood day</pre>", page)


def test_text_without_tokens_is_shown_with_the_way_to_a_map(sign_in: SignIn, texts: Texts, shop: str) -> None:
    """A response whose tokens were not asked for shows its text and says which request gives the map."""
    texts.keep(kept("shared-three", shop, ("Good", " day"), tokens=()))
    page = sign_in("operator").get(SHARED).text

    assert re.search(r"<pre[^>]*>\nGood day</pre>", page)
    assert 'attribution: "tokens"' in unescape(page)
    assert [] == tokens_of(page)
    assert "heatmap_panel.js" not in page


def test_text_of_another_ledgers_response_is_not_shown(sign_in: SignIn, texts: Texts) -> None:
    """A text of the same id that another application asked for is not this response's."""
    texts.keep(kept("shared-three", "ffffffffffff", ("not yours",)))
    page = sign_in("operator").get(SHARED).text

    assert "not yours" not in page
    assert "No text of this response is kept" in page


def test_where_texts_are_not_kept_the_page_says_how_to_turn_it_on(
    engine: ScriptedEngine, world: World, replays: Replays
) -> None:
    """An operator is told the setting; an application that it is the operator's decision."""
    app = read_once(build_app(engine, world.books, replays, default_max_tokens=64))
    pages = {}
    for role in ("operator", "application"):
        with TestClient(app) as browser:
            browser.post("/console/sign-in", data={"key": world.keys[role]})
            pages[role] = browser.get(SHARED).text

    assert "<code>texts</code>" in pages["operator"]
    assert "<code>texts</code>" not in pages["application"]
    assert all("Texts are not kept here" in page for page in pages.values())


def test_an_operator_reverses_with_a_reason_and_a_confirmation(sign_in: SignIn, world: World) -> None:
    """The counter-entries are booked by the operator's key, and the page that follows says so."""
    browser = sign_in("operator")
    form = {"csrf": token_of(browser), "reason": " our own load test ", "confirmed": "yes"}
    answer = browser.post(f"{SHARED}/reversal", data=form)

    assert (303, SHARED) == (answer.status_code, answer.headers["location"])
    booked = world.books.ledger.receipt("reversal-shared-three")
    assert booked is not None
    assert -1_699_963 == booked.amounts["clinic"]
    assert "our own load test" in json.dumps(booked.measurement)
    page = browser.get(SHARED).text
    assert "is taken back by reversal-shared-three" in page
    assert "Take its credit back" not in page


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"reason": "", "confirmed": "yes"}, "Say why"),
        ({"reason": "two\nlines", "confirmed": "yes"}, "Say why"),
        ({"reason": "x" * 1001, "confirmed": "yes"}, "Say why"),
        ({"reason": "a good one"}, "Tick the box"),
    ],
    ids=["no reason", "two lines", "too long", "no confirmation"],
)
def test_a_reversal_that_is_not_meant_is_not_made(
    sign_in: SignIn, world: World, form: dict[str, str], told: str
) -> None:
    """Without a reason or a confirmation nothing is booked, and the form says what is missing."""
    browser = sign_in("operator")
    answer = browser.post(f"{SHARED}/reversal", data={"csrf": token_of(browser), **form})

    assert (400, True) == (answer.status_code, told in answer.text)
    assert world.books.ledger.receipt("reversal-shared-three") is None


@pytest.mark.parametrize("role", ["auditor", "admin", "member", "application"])
def test_nobody_else_reverses(sign_in: SignIn, world: World, role: str) -> None:
    """A form that another role sends is refused, and books nothing."""
    browser = sign_in(role)
    form = {"csrf": token_of(browser), "reason": "why not", "confirmed": "yes"}

    assert 403 == browser.post(f"{SHARED}/reversal", data=form).status_code
    assert world.books.ledger.receipt("reversal-shared-three") is None


def test_a_reversal_without_the_sessions_token_is_refused(sign_in: SignIn, world: World) -> None:
    """Another site cannot let an operator's browser reverse."""
    answer = sign_in("operator").post(f"{SHARED}/reversal", data={"reason": "x", "confirmed": "yes"})

    assert 403 == answer.status_code
    assert world.books.ledger.receipt("reversal-shared-three") is None


def test_many_clients_and_tokens_stay_a_page() -> None:
    """A map of very many parts keeps those with the highest scores of each token, and says how many it leaves out."""
    clients = [f"member-{n}" for n in range(60)]
    scores = {client: float(n) for n, client in enumerate(clients)}
    token = TokenCredit("x", 1, dict.fromkeys(clients, 0.01), scores, 0.4)
    few, many = heat_map([token] * 10), heat_map([token] * 9_000)

    assert (60, 0) == (len(few.tokens[0].parts), few.tokens[0].left_out)
    assert (FEWEST_PARTS, 60 - FEWEST_PARTS) == (len(many.tokens[0].parts), many.tokens[0].left_out)
    assert sum(len(each.parts) for each in heat_map([token] * 1_000).tokens) <= MOST_PARTS
    assert "member-59" == many.tokens[0].top == many.tokens[0].parts[0].client


@pytest.mark.parametrize(
    ("base_share", "score", "expected"),
    [(0.0, 1.0, LEVELS), (0.99, 1.0, 1), (0.5, 1.0, 3), (1.0, 1.0, 0), (0.0, 0.0, 0), (0.0, -1.0, 0)],
)
def test_strength_follows_what_was_taught(base_share: float, score: float, expected: int) -> None:
    """From 1 to LEVELS; 0 and the commons where no client's score is above 0 or nothing was taught."""
    (token,) = heat_map([TokenCredit("x", 1, {"bank": 1 - base_share}, {"bank": score}, base_share)]).tokens
    assert (expected, COMMONS if expected == 0 else "bank") == (token.level, token.top)


def test_clients_beyond_the_colours_are_told_apart_by_another_line() -> None:
    """The thirteenth client has the first one's colour again, and is marked."""
    clients = [f"m{n}" for n in range(COLOURS + 2)]
    assert {f"m{COLOURS}", f"m{COLOURS + 1}"} == twins(clients)
    assert frozenset() == twins(clients[:COLOURS])
