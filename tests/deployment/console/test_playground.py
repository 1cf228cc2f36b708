"""The playground: whose key it asks with, what it streams, how it stops, and what it says when it cannot."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.console.pages.playground import CONNECTION
from deployment.replica.messages import Failed
from deployment.retention.replays import Replays
from deployment.retention.texts import Texts
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.world import World
from tests.deployment.console.conftest import SignIn, read_once, token_of
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.waiting import PATIENCE_S, until

PAGE = "/console/playground"
QUESTION = {"prompt": "hello", "max_tokens": 8, "temperature": 0}


@pytest.fixture
def texts(tmp_path: Path) -> Texts:
    """An empty store of texts."""
    return Texts(tmp_path / "texts", 86_400.0)


@pytest.fixture
def app(engine: ScriptedEngine, world: World, replays: Replays, texts: Texts) -> FastAPI:
    """The HTTP surface of a service that keeps texts."""
    return read_once(build_app(engine, world.books, replays, default_max_tokens=64, max_tokens_cap=100, texts=texts))


@pytest.fixture
def connect(world: World) -> Callable[[TestClient], httpx.Response]:
    """A function that connects the application's key in a browser."""

    def connected(browser: TestClient) -> httpx.Response:
        form = {"csrf": token_of(browser), "key": world.keys["application"]}
        return browser.post(f"{PAGE}/key", data=form)

    return connected


def ask(browser: TestClient, **changes: Any) -> httpx.Response:
    """The answer to a question, sent as the page's script sends it."""
    headers = {"X-CSRF-Token": token_of(browser)}
    return browser.post(f"{PAGE}/answer", json=QUESTION | changes, headers=headers)


def events(body: str) -> list[tuple[str, Any]]:
    """Name and data of each server-sent event."""
    found = []
    for block in body.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("event", "message"), data if data == "[DONE]" else json.loads(data)))
    return found


def refusal(answer: httpx.Response) -> str:
    """What the script tells of an answer that is none."""
    found = re.search(r'<p class="lead">([^<]*)</p>', answer.text)
    assert found is not None, answer.text
    return found[1]


def test_an_application_asks_with_its_own_key(sign_in: SignIn, ledger: Ledger, world: World) -> None:
    """No key needs to be connected; what was generated is booked to the application that signed in."""
    browser = sign_in("application")
    page = browser.get(PAGE).text
    assert f"<code>{world.keys['application'].split('_')[1]}</code>" in page
    assert "Connect" not in page
    made = events(ask(browser).text)[0][1]["id"]

    booked = ledger.receipt(made)
    assert booked is not None
    assert (world.keys["application"].split("_")[1], 3) == (booked.application, booked.tokens)


def test_answer_is_the_stream_of_chat_completions_and_then_its_map(sign_in: SignIn, engine: ScriptedEngine) -> None:
    """Text at once, attribution, usage; and before the end an event of HTML that tells whose each token is."""
    answer = ask(sign_in("application"))

    assert (200, "text/event-stream; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    found = events(answer.text)
    assert ["message"] * (len(found) - 2) + ["map", "message"] == [name for name, _ in found]
    assert "[DONE]" == found[-1][1]
    chunks = [data for name, data in found[:-2]]
    assert {"chat.completion.chunk"} == {chunk["object"] for chunk in chunks}
    said = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "Grüß Gott" == "".join(said)
    html = found[-2][1]["html"]
    assert ["Grüß", " ", "Gott"] == re.findall(r'role="option"[^>]*>([^<]*)</span>', html)
    assert "50.0 %" in html
    assert f'href="/console/responses/{chunks[0]["id"]}"' in html
    assert "style=" not in html
    assert "<script" not in html
    assert ("hello", 8, 0.0, True) == (
        *(engine.jobs[0].prompt[0].content, engine.jobs[0].max_tokens),
        *(engine.jobs[0].temperature, engine.jobs[0].token_level),
    )


def test_what_a_model_says_is_no_html(sign_in: SignIn, engine: ScriptedEngine) -> None:
    """Marks of HTML in an answer are text in its map."""
    engine.pieces = ("<script>alert(1)</script>", "\"'&", "<img src=x>")
    html = events(ask(sign_in("application")).text)[-2][1]["html"]

    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;img src=x&gt;" in html


def test_answer_is_found_under_responses_with_its_map(sign_in: SignIn, texts: Texts) -> None:
    """Where texts are kept, the page of the receipt shows the same map."""
    browser = sign_in("application")
    made = events(ask(browser).text)[0][1]["id"]

    kept = texts.find(made)
    assert kept is not None
    assert ("Grüß Gott", 3) == (kept.text, len(kept.tokens))
    assert 3 == browser.get(f"/console/responses/{made}").text.count('role="option"')


@pytest.mark.parametrize("role", ["operator", "admin"])
def test_other_roles_connect_an_applications_key_first(
    sign_in: SignIn, world: World, ledger: Ledger, connect: Callable[[TestClient], httpx.Response], role: str
) -> None:
    """Without one there is only the form for it; with it, what is asked is booked to the application."""
    browser = sign_in(role)
    assert 'id="prompt"' not in browser.get(PAGE).text
    assert (403, True) == ((answer := ask(browser)).status_code, "connect an application" in answer.text.lower())

    answer = connect(browser)
    assert (303, PAGE) == (answer.status_code, answer.headers["location"])
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", f"Path={PAGE}"))
    assert world.keys["application"] not in cookie
    assert 'id="prompt"' in browser.get(PAGE).text
    booked = ledger.receipt(events(ask(browser).text)[0][1]["id"])
    assert booked is not None
    assert world.keys["application"].split("_")[1] == booked.application


@pytest.mark.parametrize(
    ("key", "told"), [("", "key"), ("ptk_nonsense", "key"), ("member", "role member"), ("operator", "role operator")]
)
def test_a_key_that_is_no_applications_is_not_connected(sign_in: SignIn, world: World, key: str, told: str) -> None:
    """The page says what is wrong with it, and asks again."""
    browser = sign_in("operator")
    answer = browser.post(f"{PAGE}/key", data={"csrf": token_of(browser), "key": world.keys.get(key, key)})

    assert (400, None) == (answer.status_code, answer.cookies.get(CONNECTION))
    problem = re.search(r'id="problem">([^<]*)<', answer.text)
    assert problem is not None
    assert told in problem[1]


def test_a_connection_holds_in_its_own_session_alone(
    sign_in: SignIn, connect: Callable[[TestClient], httpx.Response]
) -> None:
    """Whoever signs in anew, or brings the cookie to another session, connects again."""
    first, second = sign_in("operator"), sign_in("operator")
    connect(first)
    second.cookies.set(CONNECTION, first.cookies[CONNECTION], path=PAGE)

    assert 'id="prompt"' in first.get(PAGE).text
    assert 'id="prompt"' not in second.get(PAGE).text


def test_a_connected_key_that_is_revoked_asks_no_more(
    sign_in: SignIn, world: World, keys: KeyRing, connect: Callable[[TestClient], httpx.Response]
) -> None:
    """The key is looked up with each question, not only when it is connected."""
    browser = sign_in("operator")
    connect(browser)
    keys.revoke(world.keys["application"].split("_")[1], actor="test")

    assert 'id="prompt"' not in browser.get(PAGE).text
    assert 403 == ask(browser).status_code


@pytest.mark.parametrize("role", ["member", "auditor"])
def test_members_and_auditors_have_no_playground(sign_in: SignIn, role: str) -> None:
    """Neither asks: a member's key and an auditor's only read."""
    browser = sign_in(role)
    assert [403, 403] == [browser.get(PAGE).status_code, ask(browser).status_code]


def test_a_question_without_the_sessions_token_is_refused(sign_in: SignIn, engine: ScriptedEngine) -> None:
    """Another site cannot spend an application's budget."""
    answer = sign_in("application").post(f"{PAGE}/answer", json=QUESTION)
    assert (403, []) == (answer.status_code, engine.jobs)


@pytest.mark.parametrize(
    "changes",
    [{"prompt": ""}, {"max_tokens": 0}, {"temperature": 3}, {"max_tokens": "many"}, {"model": "another"}],
    ids=str,
)
def test_a_question_that_cannot_be_asked_is_400_in_words(
    sign_in: SignIn, engine: ScriptedEngine, changes: dict[str, Any]
) -> None:
    """What the form lets nobody send is refused by name, and nothing is generated."""
    answer = ask(sign_in("application"), **changes)
    assert (400, True) == (answer.status_code, next(iter(changes)) in refusal(answer).lower())
    assert [] == engine.jobs


def test_limits_of_the_model_and_of_the_key_hold(sign_in: SignIn, keys: KeyRing, engine: ScriptedEngine) -> None:
    """Too many tokens are 400; a budget that is too small, and questions too close together, are 429 in words."""
    small = sign_in(keys.create("application", "small", actor="test", token_budget=10))
    often = sign_in(keys.create("application", "often", actor="test", requests_per_minute=1))
    answers = [ask(small, max_tokens=500), ask(small, max_tokens=50), ask(often), ask(often)]

    assert [400, 429, 200, 429] == [answer.status_code for answer in answers]
    assert "at most 100 tokens" in refusal(answers[0])
    assert "token budget of this key is 10" in refusal(answers[1])
    assert int(answers[3].headers["retry-after"]) >= 1
    assert 1 == len(engine.jobs)


def test_a_model_that_is_away_is_told(sign_in: SignIn, engine: ScriptedEngine) -> None:
    """The page opens and says so; a question is 503 in words, with a time to come back."""
    browser = sign_in("application")
    engine.down = True
    page, answer = browser.get(PAGE), ask(browser)

    assert (200, True) == (page.status_code, "No replica of the model answers" in page.text)
    assert (503, "5") == (answer.status_code, answer.headers["retry-after"])
    assert "No replica of the model answers." == refusal(answer)


def test_a_refusal_before_any_text_has_its_status(sign_in: SignIn, engine: ScriptedEngine) -> None:
    """Where all places are taken the question is 429 in words."""
    engine.pieces, engine.failure = ("x",), Failed(429, "all places are taken", "overloaded", retry_after_s=1)
    answer = ask(sign_in("application"))
    assert (429, "1", "All places are taken.") == (answer.status_code, answer.headers["retry-after"], refusal(answer))


def test_a_failure_after_some_text_is_the_last_event(sign_in: SignIn, engine: ScriptedEngine) -> None:
    """A stream that breaks off on the service's side ends in its error, without a map."""
    engine.failure = Failed(503, "the model went away", "engine_unavailable", credited=True)
    found = events(ask(sign_in("application")).text)

    assert "the model went away" == found[-1][1]["error"]["message"]
    assert {"message"} == {name for name, _ in found}


def test_stopping_books_what_was_generated(address: str, world: World, engine: ScriptedEngine, ledger: Ledger) -> None:
    """Whoever closes the stream ends the generation, and what had come until then is credited."""
    engine.pieces, engine.pause_s = ("x",) * 500, 0.01
    with httpx.Client(base_url=address, timeout=PATIENCE_S) as browser:
        browser.post("/console/sign-in", data={"key": world.keys["application"]})
        found = re.search(r'data-csrf="([0-9a-f]+)"', browser.get(PAGE).text)
        assert found is not None
        headers = {"X-CSRF-Token": found[1]}
        with browser.stream("POST", f"{PAGE}/answer", json=QUESTION, headers=headers) as stream:
            lines = (line for line in stream.iter_lines() if line)
            made = [json.loads(next(lines).removeprefix("data: "))["id"] for _ in range(5)]
    until(lambda: engine.left)

    assert made[:1] == engine.left
    booked = ledger.receipt(made[0])
    assert booked is not None
    assert (True, True) == (booked.measurement["cut"], 3 < booked.tokens < 500)


def test_the_page_has_no_script_or_style_of_its_own(sign_in: SignIn) -> None:
    """Scripts come from files, so that the content policy holds; without them the page says what it needs them for."""
    page = sign_in("application").get(PAGE)

    assert not re.search(r"<script(?![^>]*src=)|style=|\son\w+=", page.text)
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "<noscript>" in page.text
    assert 'aria-live="polite"' in page.text
    assert CARD.name in page.text
