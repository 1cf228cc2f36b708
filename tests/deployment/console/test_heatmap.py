"""The heat map and the playground in a real browser: walked by keyboard, streamed, stopped, refused and broken off."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect

from deployment.app.http_app import build_app
from deployment.replica.messages import Failed, TokenCredit
from deployment.retention.replays import Replays
from deployment.retention.texts import KeptText, Texts
from rewards.ledger.ledger import Ledger
from tests.deployment.api.world import World
from tests.deployment.console.browsing import browsing, chromium, sign_in, violations
from tests.deployment.console.conftest import read_once
from tests.deployment.gateway.engines import CARD, ScriptedEngine

ARABIC = ("مرحبا", " بكم", " في", " العيادة")
LATIN = ("Good", " day", " to", "\n", "", " all")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests here."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def texts(tmp_path: Path) -> Texts:
    """An empty store of texts."""
    return Texts(tmp_path / "texts", 86_400.0)


@pytest.fixture
def app(engine: ScriptedEngine, world: World, replays: Replays, texts: Texts) -> FastAPI:
    """The HTTP surface of a service that keeps texts."""
    return read_once(build_app(engine, world.books, replays, default_max_tokens=64, max_tokens_cap=500, texts=texts))


@contextmanager
def at(browser: Browser, address: str, world: World, path: str) -> Iterator[Page]:
    """A page of the console as the application sees it."""
    with browsing(browser, address) as (page, watch):
        sign_in(page, watch, world.keys["application"])
        page.goto(path)
        yield page


def keep(texts: Texts, world: World, pieces: tuple[str, ...]) -> None:
    """Keep a text of a response of the application: the bank is on top of even tokens, the clinic of odd ones."""
    tokens = tuple(
        TokenCredit(piece, n, {"bank": 0.2, "clinic": 0.4}, {"bank": float(n % 2 == 0), "clinic": n % 2 / 2}, 0.4)
        for n, piece in enumerate(pieces)
    )
    application = world.keys["application"].split("_")[1]
    whole = ({"bank": 0.2, "clinic": 0.4}, 0.4, tokens)
    texts.keep(KeptText("shared-three", application, CARD.name, 1, "".join(pieces), *whole))


def test_arrow_keys_go_from_token_to_token(browser: Browser, address: str, world: World, texts: Texts) -> None:
    """The map is one stop of the Tab key; arrows, Home and End move in it, and the panel follows."""
    keep(texts, world, LATIN)
    with at(browser, address, world, "/console/responses/shared-three") as page:
        tokens, panel = page.get_by_role("option"), page.locator(".heatmap-panel")
        expect(panel).to_contain_text("arrow keys")
        tokens.first.focus()
        for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 5), ("ArrowRight", 5)):
            page.keyboard.press(key)
            expect(tokens.nth(place)).to_be_focused()
            expect(panel).to_contain_text(f"Token {place + 1} of 6")
            expect(tokens.nth(place)).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Home")
        expect(panel.locator("li").first).to_have_text("bank +1.000 20.0 %")
        expect(panel).to_contain_text("60.0 % taught, 40.0 % commons")
        expect(page.locator("[role=option][tabindex='0']")).to_have_count(1)
        expect(page.locator("[role=option][aria-selected='true']")).to_have_count(1)
        page.keyboard.press("Tab")
        expect(page.locator("[role=option]:focus")).to_have_count(0)


def test_pointing_at_a_token_shows_whose_it_is(browser: Browser, address: str, world: World, texts: Texts) -> None:
    """The panel tells of the token under the pointer, also where it is an end of line or no text at all."""
    keep(texts, world, LATIN)
    with at(browser, address, world, "/console/responses/shared-three") as page:
        tokens, panel = page.get_by_role("option"), page.locator(".heatmap-panel")
        for place, told in ((1, "“ day”"), (3, "“⏎”"), (4, "no text of its own"), (0, "“Good”")):
            tokens.nth(place).hover(position={"x": 2, "y": 6})
            expect(panel).to_contain_text(told)
        expect(panel.locator("li").first).to_contain_text("bank")


def test_arrows_follow_the_direction_of_the_text(browser: Browser, address: str, world: World, texts: Texts) -> None:
    """In a text from right to left the next token is on the left."""
    keep(texts, world, ARABIC)
    with at(browser, address, world, "/console/responses/shared-three") as page:
        tokens = page.get_by_role("option")
        tokens.first.focus()
        page.keyboard.press("ArrowLeft")
        expect(tokens.nth(1)).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(tokens.first).to_be_focused()


def test_text_streams_and_its_colours_come_with_the_receipt(
    browser: Browser, address: str, world: World, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """Plain text first, with a word on when colours come; then the map in its place, the credit, and the way on."""
    engine.pieces, engine.pause_s = ("one", " two", " three", " four"), 0.3
    with at(browser, address, world, "/console/playground") as page:
        page.get_by_role("textbox", name="Question").fill("count")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#stream")).to_contain_text("one two")
        expect(page.locator("#colours")).to_be_visible()
        expect(page.get_by_role("option")).to_have_count(0)
        expect(page.locator("#told")).to_be_empty()
        expect(page.get_by_role("option")).to_have_text(["one", " two", " three", " four"], use_inner_text=False)
        expect(page.locator("#stream")).to_be_hidden()
        expect(page.locator("#told")).to_have_text("The answer is complete: 4 tokens.")
        page.get_by_role("option").nth(2).focus()
        expect(page.locator(".heatmap-panel")).to_contain_text("Token 3 of 4")
        assert [] == violations(page)
        page.get_by_role("link", name="See the whole receipt").click()
        expect(page.get_by_role("option")).to_have_count(4)
        assert ledger.receipt(page.url.rsplit("/", 1)[1]) is not None


def test_stop_ends_the_answer_and_leaves_its_text(
    browser: Browser, address: str, world: World, engine: ScriptedEngine
) -> None:
    """What came until then stays on the page, with the way to its receipt; another question can be asked."""
    engine.pieces, engine.pause_s = ("word ",) * 400, 0.02
    with at(browser, address, world, "/console/playground") as page:
        page.get_by_role("textbox", name="Question").fill("count")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#stream")).to_contain_text("word word")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#state")).to_have_text("stopped")
        expect(page.locator("#told")).to_contain_text("is credited")
        expect(page.locator("#stream")).to_contain_text("word word")
        expect(page.get_by_role("link", name="See its receipt")).to_be_visible()
        expect(page.get_by_role("button", name="Ask")).to_be_enabled()


def test_refusals_and_failures_are_told_in_words(
    browser: Browser, address: str, world: World, engine: ScriptedEngine
) -> None:
    """A refusal, with when to come back; a failure on the way; and an answer that broke off, with what is credited."""
    begun = {"id": "chatcmpl-x", "choices": [{"delta": {"content": "half"}}]}
    with at(browser, address, world, "/console/playground") as page:
        page.get_by_role("textbox", name="Question").fill("count")
        ask, failure = page.get_by_role("button", name="Ask"), page.get_by_role("alert")

        engine.failure = Failed(429, "all places are taken", "overloaded", retry_after_s=2)
        pieces, engine.pieces = engine.pieces, ("x",)
        ask.click()
        expect(failure).to_have_text("All places are taken. Try again in 2 s.")

        engine.pieces = pieces
        engine.failure = Failed(503, "the model went away", "engine_unavailable", credited=True)
        ask.click()
        expect(failure).to_have_text("The model went away.")

        stream = {"content_type": "text/event-stream", "body": f"data: {json.dumps(begun)}\n\n"}
        page.route("**/playground/answer", lambda route: route.fulfill(**stream))
        ask.click()
        expect(failure).to_contain_text("The connection broke off")
        expect(page.locator("#stream")).to_have_text("half")
        expect(page.get_by_role("link", name="See its receipt")).to_have_attribute(
            "href", "/console/responses/chatcmpl-x"
        )
