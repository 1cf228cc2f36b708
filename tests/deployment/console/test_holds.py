"""Holds in the console: placed and released by operators who confirm it, and told to whoever may see everything."""

import pytest
from fastapi.testclient import TestClient

from rewards.periods import holds
from tests.deployment.api.world import World
from tests.deployment.console.conftest import SignIn, token_of
from tests.deployment.console.documents import Document


@pytest.fixture
def operator(sign_in: SignIn) -> TestClient:
    """A browser in which an operator has signed in."""
    return sign_in("operator")


def post(browser: TestClient, path: str, **typed: str) -> Document:
    """Send a form; the page that comes of it, whether it was accepted or not."""
    answer = browser.post(f"/console/{path}", data=typed | {"csrf": token_of(browser)})
    if answer.status_code == 303:
        return Document.of(browser.get(answer.headers["location"]))
    assert answer.status_code in {400, 404, 409}, answer.text
    return Document.of(answer, answer.status_code)


def test_a_hold_is_placed_and_released(operator: TestClient, world: World) -> None:
    """With the reason and the key that did it; the draft that it touches is disputed."""
    sure = {"confirmed": "yes"}
    placed = post(operator, "holds", kind="response", target=" shared-two ", reason="a doubt", **sure)
    row = placed.table("Active").row("hold-2")

    assert "hold-2 is placed on response shared-two." in placed.words
    assert ("response shared-two", "a doubt", "you") == (row["On"], row["Reason"], row["by"])
    assert "⚠ disputed" in Document.of(operator.get("/console/periods/second")).words
    released = post(operator, "holds/hold-2/release", reason="it was none", **sure)
    assert "hold-2 on response shared-two is released." in released.words
    assert ["hold-2"] == [row[0] for row in released.table("Released").rows[1:]]
    found = holds.all_holds(world.books.ledger)[1]
    assert (world.keys["operator"].split("_")[1], True) == (found.actor, found.released_at_us is not None)


@pytest.mark.parametrize(
    ("path", "typed", "told"),
    [
        ("holds", {"kind": "client", "target": "bank", "reason": "x"}, "tick the box"),
        ("holds", {"kind": "client", "target": "nobody", "reason": "x", "confirmed": "y"}, "no client 'nobody'"),
        ("holds", {"kind": "response", "target": "none", "reason": "x", "confirmed": "y"}, "no response 'none'"),
        (
            "holds",
            {"kind": "client", "target": "clinic", "reason": "x", "confirmed": "y"},
            "is held already, by hold-1",
        ),
        ("holds", {"kind": "client", "target": "", "reason": "x", "confirmed": "y"}, "target"),
        ("holds", {"kind": "purse", "target": "bank", "reason": "x", "confirmed": "y"}, "kind"),
        ("holds", {"kind": "client", "target": "bank", "reason": " ", "confirmed": "y"}, "that says why"),
        ("holds", {"kind": "response", "target": "bank-alone", "reason": "x", "confirmed": "y"}, "reverse it instead"),
        ("holds/hold-9/release", {"reason": "x", "confirmed": "y"}, "no hold 'hold-9'"),
        ("holds/hold-1/release", {"reason": "", "confirmed": "y"}, "reason"),
        ("holds/hold-1/release", {"reason": "x"}, "tick the box"),
    ],
)
def test_what_cannot_be_held_or_released_is_told_on_the_page(
    operator: TestClient, world: World, path: str, typed: dict[str, str], told: str
) -> None:
    """Nothing is done, the page says why, and what was typed is still there."""
    before = holds.all_holds(world.books.ledger)
    page = post(operator, path, **typed)

    assert "Nothing was done" in page.words
    assert told in page.words
    assert typed.get("target", "") == page.form("/holds").fields["target"]
    assert before == holds.all_holds(world.books.ledger)


def test_a_link_says_what_is_to_be_held(operator: TestClient) -> None:
    """The form comes filled in, for pages that lead to it."""
    page = Document.of(operator.get("/console/holds", params={"kind": "response", "target": "shared-two"}))

    assert "shared-two" == page.form("/holds").fields["target"]


def test_holds_are_not_for_members(sign_in: SignIn) -> None:
    """They speak of others, and reasons are not a member's to read."""
    assert 403 == sign_in("member").get("/console/holds").status_code
    assert "a secret reason to hold" in Document.of(sign_in("auditor").get("/console/holds")).words
