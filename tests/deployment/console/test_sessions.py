"""A session is what its cookie says and no more: nobody makes one up, keeps one too long, or outlives its key."""

from datetime import datetime

import pytest
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from itsdangerous import URLSafeTimedSerializer
from starlette.types import Receive, Scope, Send

from deployment.access.audit_trail import KIND, Calls
from deployment.access.key_cache import FRESH_S
from deployment.console import sessions as sessions_module
from deployment.console.gate import SessionGate
from deployment.console.pages.sign_in import local
from deployment.console.sessions import COOKIE, LONGEST_S, Session, Sessions
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.store import events
from tests.deployment.api.world import World
from tests.deployment.console.conftest import SignIn, token_of
from tests.deployment.outages import Clock, away


@pytest.fixture
def sessions(keys: KeyRing) -> Sessions:
    return Sessions(keys)


def of(key_id: str) -> str:
    return key_id.split("_")[1]


def test_a_session_is_read_as_it_was_begun(sessions: Sessions, keys: KeyRing, application_key: str) -> None:
    """The cookie names the key, and two sessions of one key differ."""
    key = keys.check(application_key)
    first, second = (sessions.read(sessions.begin(key)) for _ in range(2))

    assert first is not None
    assert second is not None
    assert (key.key_id, key.key_id) == (first.key_id, second.key_id)
    assert first.nonce != second.nonce
    assert sessions.csrf(first) != sessions.csrf(second)


def test_any_altered_letter_ends_a_session(sessions: Sessions, keys: KeyRing, application_key: str) -> None:
    """Whichever letter of the cookie is another one, it is no session."""
    cookie = sessions.begin(keys.check(application_key))
    others = [
        cookie[:place] + ("A" if letter != "A" else "B") + cookie[place + 1 :] for place, letter in enumerate(cookie)
    ]
    # The last letter of each base64 text has bits that mean nothing; what they decode to is the same.
    read = [other for other in others if sessions.read(other) not in (None, sessions.read(cookie))]

    assert [] == read
    assert [] == [text for text in ("", ".", "a.b.c", cookie[:-1], "\x00", "ü", "x" * 10_000) if sessions.read(text)]


def test_another_pepper_reads_no_session(sessions: Sessions, url: str, keys: KeyRing, application_key: str) -> None:
    """Who replaces the pepper ends every session; who has the same pepper, as another ingress, goes on with them."""
    cookie = sessions.begin(keys.check(application_key))
    other, same = KeyRing(url, bytes(32)), KeyRing(url, bytes(range(32)))

    assert None is Sessions(other).read(cookie)
    assert sessions.read(cookie) == Sessions(same).read(cookie)
    other.close()
    same.close()


def test_a_session_lasts_a_working_day(
    sessions: Sessions, keys: KeyRing, application_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight hours after it was begun it is over, however much it was used."""

    class Earlier(URLSafeTimedSerializer):
        """Signs as the real one did some seconds ago."""

        by_s = 0

        class default_signer(URLSafeTimedSerializer.default_signer):  # noqa: N801 - its name in the library
            def get_timestamp(self) -> int:
                return int(datetime.now().timestamp()) - Earlier.by_s  # noqa: DTZ005 - seconds since 1970 either way

    key = keys.check(application_key)
    monkeypatch.setattr(sessions_module, "URLSafeTimedSerializer", Earlier)
    earlier = Sessions(keys)
    Earlier.by_s = LONGEST_S - 60
    young = earlier.begin(key)
    Earlier.by_s = LONGEST_S + 60
    old = earlier.begin(key)

    assert sessions.read(young) is not None
    assert sessions.read(old) is None


def test_a_flash_is_no_session(sessions: Sessions) -> None:
    """What is signed for one purpose is of no use for another."""
    assert "done" == sessions.read_flash(sessions.flash("done"))
    assert None is sessions.read(sessions.flash("done"))


def test_a_revoked_key_ends_its_sessions(sessions: Sessions, keys: KeyRing) -> None:
    """Within the seconds for which a key's last answer does, at every ingress."""

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["state"]["key"].key_id)(scope, receive, send)

    clock, presented = Clock(), keys.create("member", "a desk", actor="test", client="bank")
    cookie = {COOKIE: sessions.begin(keys.check(presented))}
    browser = TestClient(
        SessionGate(echo, keys, sessions, Calls(keys.database), clock), cookies=cookie, follow_redirects=False
    )
    assert of(presented) == browser.get("/clients").text
    keys.revoke(of(presented), actor="test")
    assert of(presented) == browser.get("/clients").text, "the key's last answer does for a moment"

    clock.now += FRESH_S
    answer = browser.get("/clients")

    assert (303, "/console/sign-in?next=%2Fclients") == (answer.status_code, answer.headers["location"])


def test_no_page_asks_for_the_key_each_time(world: World, sign_in: SignIn) -> None:
    """While the answer about a key is fresh, the table of keys is not read."""
    browser = sign_in("member")
    assert 200 == browser.get("/console/").status_code
    with away(world.books.keys.database, "api_keys"):
        assert 200 == browser.get("/console/").status_code


def test_signing_in_sets_a_cookie_that_nothing_else_reads(nobody: TestClient, world: World) -> None:
    """Not scripts, not other sites, not other paths; and over https not without TLS."""
    plain = nobody.post("/console/sign-in", data={"key": f" {world.keys['operator']}\n"})
    tls = nobody.post("https://testserver/console/sign-in", data={"key": world.keys["operator"]})
    proxied = nobody.post(
        "/console/sign-in", data={"key": world.keys["operator"]}, headers={"X-Forwarded-Proto": "https"}
    )
    twice = nobody.post(
        "/console/sign-in", data={"key": world.keys["operator"]}, headers={"X-Forwarded-Proto": "HTTPS, http"}
    )

    for answer in (plain, tls, proxied, twice):
        assert 303 == answer.status_code
        name, *attributes = answer.headers["set-cookie"].split("; ")
        assert name.startswith(f"{COOKIE}=")
        expected = {"HttpOnly", f"Max-Age={LONGEST_S}", "Path=/console", "SameSite=strict"}
        assert expected | ({"Secure"} if answer is not plain else set()) == set(attributes)
        assert world.keys["operator"] not in str(answer.headers), "the key itself is not in the cookie"


def test_a_refused_key_is_told_on_the_page(nobody: TestClient) -> None:
    """No session begins, and what was typed is not shown again."""
    for presented in ("", "nonsense", "ptk_0123456789ab_" + "A" * 43, "ü\x00<"):
        answer = nobody.post("/console/sign-in", data={"key": presented})

        assert (401, "text/html; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
        assert "The API key is not known." in answer.text
        assert "set-cookie" not in answer.headers
        assert not presented or presented not in answer.text


def test_a_revoked_key_does_not_sign_in(nobody: TestClient, world: World) -> None:
    """Who has the secret is told that it was revoked."""
    world.books.keys.revoke(of(world.keys["auditor"]), actor="test")

    assert "was revoked." in nobody.post("/console/sign-in", data={"key": world.keys["auditor"]}).text


def test_signing_in_is_written_down(nobody: TestClient, world: World, ledger: Ledger) -> None:
    """The book of events has who came in, as it has what they did."""
    nobody.post("/console/sign-in", data={"key": world.keys["admin"]})

    assert ("/console/sign-in", 303) in calls(ledger, of(world.keys["admin"]))


def test_signing_out_ends_the_session_of_this_browser(sign_in: SignIn) -> None:
    """The cookie is gone; the next page asks to sign in."""
    browser = sign_in("auditor")
    answer = browser.post("/console/sign-out", data={"csrf": token_of(browser)})

    assert (303, "/console/sign-in") == (answer.status_code, answer.headers["location"])
    assert 303 == browser.get("/console/").status_code


def test_while_the_ledger_is_away_nobody_is_sent_to_sign_in_again(sign_in: SignIn, world: World) -> None:
    """Who cannot be checked sees that the ledger is away, and keeps the session."""
    browser = sign_in("operator")
    with away(world.books.keys.database, "api_keys"):
        refused = browser.get("/console/")
    answer = browser.get("/console/")

    assert (503, True) == (refused.status_code, "the ledger is away" in refused.text.lower())
    assert 200 == answer.status_code


ELSEWHERE = (
    "https://evil.example/",
    "//evil.example/",
    "/console//evil.example",
    "/\\evil.example",
    "/console/\\..\\evil",
    "/console/../v1/models",
    "/console/%2e%2e/v1/models",
    "/console/..%2fv1",
    "/console/%5c..",
    "/consoleevil",
    "/v1/models",
    "javascript:alert(1)",
    "/console/\r\nSet-Cookie: a=b",
    "/console/\tx",
    " /console/",
    "",
)
BACK = ("/console/", "/console/clients/a%20b", "/console/responses?client=bank&cursor=x%3D")


def test_signing_in_leads_nowhere_else(nobody: TestClient, world: World) -> None:
    """Whatever the link says, the way goes on within the console."""
    answer = nobody.post("/console/sign-in", data={"key": world.keys["operator"], "next": ELSEWHERE[0]})

    assert (303, "/console/") == (answer.status_code, answer.headers["location"])
    assert {"/console/"} == {local(wanted) for wanted in ELSEWHERE}


def test_signing_in_leads_back_to_the_page_that_was_asked_for(nobody: TestClient, world: World) -> None:
    """With its query, by way of the form."""
    for wanted in BACK:
        asked = nobody.get(wanted)
        assert 303 == asked.status_code
        form = nobody.get(asked.headers["location"])
        assert f'name="next" value="{wanted.replace("&", "&amp;")}"' in form.text

    answer = nobody.post("/console/sign-in", data={"key": world.keys["admin"], "next": wanted})
    assert wanted == answer.headers["location"]
    assert list(BACK) == [local(wanted) for wanted in BACK]


def test_the_form_token_of_a_session_is_its_own(sessions: Sessions) -> None:
    """Neither another key's nor another session's token is the same."""
    tokens = {sessions.csrf(Session(key, nonce)) for key in ("a", "ab") for nonce in ("b", "bb", "")}

    assert 6 == len(tokens)


def calls(ledger: Ledger, key_id: str) -> list[tuple[str, int]]:
    """Path and status of the calls that are written down of a key."""
    with ledger.database.read() as connection:
        found = events.find(connection, kinds=[KIND])
    return [(event.subject, event.document["status"]) for event in found if event.actor == key_id]
