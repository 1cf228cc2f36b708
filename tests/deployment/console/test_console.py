"""The console as a whole: forms are of their session, errors are pages, and what happens is written down."""

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.access.audit_trail import KIND
from deployment.console.figures.snapshot import Figures
from deployment.console.gate import RULES
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.store import events
from tests.deployment.api.test_access import FOREIGN, filled
from tests.deployment.api.world import World
from tests.deployment.console.conftest import SignIn, token_of
from tests.deployment.console.test_access import TABLE, console_of
from tests.deployment.outages import away

POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
FORMS = [path for method, path in TABLE if method == "POST" and path != "/sign-in"]


def test_a_form_without_its_token_changes_nothing(sign_in: SignIn, ledger: Ledger) -> None:
    """Missing, empty, another session's, another key's: whatever the form, it is refused."""
    browser = sign_in("operator")
    others = (None, "", "x", "ü", token_of(sign_in("operator")), token_of(sign_in("admin")), token_of(browser)[:-1])
    for path in FORMS:
        if "playground" in path:
            continue  # of its own roles; its answers are asked for by script
        for token in others:
            data = (
                {"csrf": token, "reason": "a reason", "kind": "client", "target": "bank"} if token is not None else {}
            )
            answer = browser.post("/console" + filled(path, FOREIGN), data=data)
            assert (403, True) == (answer.status_code, "form is of another session" in answer.text), (path, token)
            headers = {} if token is None or not token.isascii() else {"X-CSRF-Token": token}
            assert 403 == browser.post("/console" + filled(path, FOREIGN), headers=headers, json={}).status_code

    with ledger.database.read() as connection:
        kinds = {event.kind for event in events.find(connection, kinds=None) if event.actor != "test"}
    assert "hold.released" not in kinds
    assert len(FORMS) > 8


def test_a_form_with_its_token_is_taken(sign_in: SignIn) -> None:
    """From the form, or from a script's header."""
    browser = sign_in("operator")
    token = token_of(browser)

    assert 303 == browser.post("/console/sign-out", headers={"X-CSRF-Token": token}).status_code
    browser = sign_in("operator")
    assert 303 == browser.post("/console/sign-out", data={"csrf": token_of(browser)}).status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "nonsense"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Origin": "http://testserver:8080"},
        {"Origin": "http://testserver.evil.example"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)
def test_no_other_site_signs_anybody_in_or_sends_a_form(
    nobody: TestClient, world: World, headers: dict[str, str]
) -> None:
    """Not even with the right key, or by a path that is not there."""
    for path in ("/console/sign-in", "/console/sign-out", "/console/nothing"):
        answer = nobody.post(path, data={"key": world.keys["operator"]}, headers=headers)

        assert (403, "set-cookie" in answer.headers) == (answer.status_code, False)
        assert "another site" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://TestServer:443"},
    ],
)
def test_a_browser_on_this_site_and_other_programs_sign_in(
    nobody: TestClient, world: World, headers: dict[str, str]
) -> None:
    """Whether TLS ends here or in front, and whether a browser is old or new."""
    assert 303 == nobody.post("/console/sign-in", data={"key": world.keys["operator"]}, headers=headers).status_code


def test_every_page_says_how_it_may_be_used(sign_in: SignIn, nobody: TestClient) -> None:
    """Not framed, not kept, not taken for something else, no script of others: pages, errors and redirects alike."""
    browser = sign_in("operator")
    answers = [browser.get(f"/console{path}") for path in ("/", "/clients", "/clients/bank", "/periods", "/nothing")]
    answers += [nobody.get("/console/"), nobody.get("/console/sign-in"), nobody.post("/console/sign-in")]

    assert {200, 303, 401, 404} == {answer.status_code for answer in answers}
    for answer in answers:
        told = [answer.headers[name] for name in ("content-security-policy", "cache-control", "referrer-policy")]
        assert [POLICY, "no-store", "same-origin"] == told
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert not re.search(r"\sstyle=|<style|<script(?! src=)|\son\w+=", answer.text), answer.url


def test_static_files_are_kept_under_the_address_of_their_content(nobody: TestClient) -> None:
    """The page asks for a version, which may be kept for ever; without one nothing is kept."""
    page = nobody.get("/console/sign-in").text
    addresses = re.findall(r'(?:href|src)="(/console/static/[^"]+)"', page)

    assert len(addresses) >= 2
    for address in addresses:
        kept, asked = nobody.get(address), nobody.get(address.partition("?")[0])
        assert "public, max-age=31536000, immutable" == kept.headers["cache-control"]
        assert ("no-store", 200) == (asked.headers["cache-control"], asked.status_code)
        assert kept.content == asked.content
    assert "no-store" == nobody.get("/console/static/none.css?v=1").headers["cache-control"]


def test_errors_are_pages_with_their_status_and_the_request_id(sign_in: SignIn) -> None:
    """In the console's layout, from the 404 of a name to a form that is not valid."""
    browser = sign_in("operator")
    token = token_of(browser)
    answers = {
        404: browser.get("/console/clients/nobody", headers={"X-Request-Id": "a-request"}),
        400: browser.get("/console/responses?cursor=nonsense", headers={"X-Request-Id": "a-request"}),
        405: browser.post("/console/clients", headers={"X-CSRF-Token": token, "X-Request-Id": "a-request"}),
    }

    assert "There is no client" in answers[404].text
    for status, answer in answers.items():
        assert answer.status_code in {status, 404 if status == 405 else status}
        assert "text/html; charset=utf-8" == answer.headers["content-type"]
        assert "<code>a-request</code>" in answer.text
        assert ("a-request", 1) == (answer.headers["x-request-id"], answer.text.count("<h1>"))


def test_what_nobody_foresaw_is_a_page_without_its_text(
    app: FastAPI, sign_in: SignIn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has the reason, the page the request id to find it by."""

    def fail(_self: object) -> None:
        raise RuntimeError("a secret of the inside")

    browser = sign_in("operator")
    monkeypatch.setattr(type(console_of(app).state.figures), "now", fail)
    with caplog.at_level(logging.ERROR):
        answer = browser.get("/console/", headers={"X-Request-Id": "a-request"})

    assert (500, "text/html; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    assert "a secret" not in answer.text
    assert "<code>a-request</code>" in answer.text
    assert "a secret of the inside" in caplog.text


def test_a_ledger_that_is_away_is_a_page_too(sign_in: SignIn, world: World) -> None:
    """With the status for it, and when to come back."""
    browser = sign_in("operator")
    browser.get("/console/")
    with away(world.books.ledger.database, "events"):
        answer = browser.get("/console/periods")

    assert (503, "5") == (answer.status_code, answer.headers["retry-after"])
    assert "The ledger is away; try again." in answer.text


def test_views_of_privileged_roles_and_every_change_are_written_down(
    app: FastAPI, sign_in: SignIn, ledger: Ledger
) -> None:
    """What a role may not see is counted under its route; not a member's reading, and no static file."""
    member, auditor = sign_in("member"), sign_in("auditor")
    member.get("/console/clients")
    member.get("/console/holds")
    member.post("/console/sign-out", data={"csrf": token_of(member)})
    auditor.get("/console/clients?client=bank")
    auditor.get("/console/static/console.css")
    auditor.get("/console/playground")
    auditor.get("/console/nothing")
    app.state.calls.close()

    with ledger.database.read() as connection:
        found = events.find(connection, kinds=[KIND])
    written = {
        (event.subject, event.document["method"], event.document["role"], event.document["status"]) for event in found
    }

    assert written >= {
        ("/console/sign-in", "POST", "member", 303),
        ("/console/sign-out", "POST", "member", 303),
        ("/console/sign-in", "POST", "auditor", 303),
        ("/console/clients", "GET", "auditor", 200),
        ("/console/playground/**", "GET", "auditor", 403),
        ("/console/**", "GET", "auditor", 404),
    }
    assert not [each for each in written if "static" in each[0] or (each[1], each[2]) == ("GET", "member")]


def test_a_flash_is_shown_once(app: FastAPI, sign_in: SignIn) -> None:
    """On the next page, and not on the one after."""
    browser = sign_in("member")
    flash = console_of(app).state.sessions.flash("<b>Done.</b>")
    browser.cookies.set("protoken_flash", flash, domain="testserver.local", path="/console")
    first = browser.get("/console/clients/bank")

    assert '<p class="flash" role="status">&lt;b&gt;Done.&lt;/b&gt;</p>' in first.text
    assert "Done." not in browser.get("/console/clients/bank").text


def test_an_application_goes_to_the_playground(sign_in: SignIn) -> None:
    """It has no figures to see, and its pages are few."""
    browser = sign_in("application")
    answer = browser.get("/console/")

    assert (303, "/console/playground") == (answer.status_code, answer.headers["location"])
    navigation = re.findall(r'<a href="/console(/[a-z]*)"', browser.get("/console/playground").text)
    assert {"/responses", "/playground"} <= set(navigation)
    assert not {"/clients", "/periods", "/statements", "/trust"} & set(navigation)


def test_the_console_without_its_slash_is_the_console(nobody: TestClient) -> None:
    """Who types the address by hand gets there, whatever a proxy in front made of scheme and host."""
    answer = nobody.get("/console")

    assert (307, "/console/") == (answer.status_code, answer.headers["location"])


def test_a_body_that_is_too_large_is_refused_as_everywhere(nobody: TestClient) -> None:
    """Before it is held in memory."""
    answer = nobody.post("/console/sign-in", data={"key": "x" * (1024 * 1024 + 1)})

    assert (413, "text/html; charset=utf-8") == (answer.status_code, answer.headers["content-type"])


def test_the_pages_are_no_part_of_the_operator_api(app: FastAPI) -> None:
    """The OpenAPI document has the API alone, and the console has none of its own."""
    assert not [path for path in app.openapi()["paths"] if path.startswith("/console")]
    assert None is console_of(app).openapi_url
    assert not [path for _, path, _ in RULES if path.startswith("/console")]


def test_pages_take_no_thread_in_which_requests_are_admitted(sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks at figures that are slow to read, or guesses keys, holds up no application: asyncio's own are few."""
    threads: list[str] = []

    def noting(called: Callable[..., Any]) -> Callable[..., Any]:
        def note(*asked: Any) -> Any:
            threads.append(threading.current_thread().name)
            return called(*asked)

        return note

    monkeypatch.setattr(Figures, "now", noting(Figures.now))
    monkeypatch.setattr(KeyRing, "check", noting(KeyRing.check))
    for role in ("operator", "member"):
        browser = sign_in(role)
        assert 200 == browser.get("/console/").status_code
        assert 200 == browser.get("/console/clients").status_code
    browser = sign_in("operator")
    browser.post("/console/playground/key", data={"key": "x", "csrf": token_of(browser)})

    assert 8 == len(threads)
    assert not [name for name in threads if name.startswith("asyncio")]
