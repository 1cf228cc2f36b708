"""The console of a service in which nothing has happened yet: each page says what will be there, and nothing fails."""

import pytest

from deployment.books.books import Books
from rewards import periods
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.reading import DATABASES
from tests.deployment.api.world import ROLES, World
from tests.deployment.console.conftest import SignIn, token_of
from tests.deployment.console.documents import Document

SAID = {
    "periods": "No period is closed yet.",
    "periods/preview?name=2026-11": "No settlement policy is set",
    "holds": "Nothing is on hold.",
    "statements": "There are no statements yet",
    "trust": "Nothing is sealed yet",
    "trust/proof?response=none&client=bank": "has no entry in a receipt",
    "trust/verify": "No audit was made since this service was started.",
}


@pytest.fixture
def world(ledger: Ledger, keys: KeyRing) -> World:
    """Books with clients and nothing else, without a policy and without a signing key."""
    made = {role: keys.create(role, role, actor="test", client="bank" if role == "member" else None) for role in ROLES}
    return World(Books(ledger, keys), made, ())


@pytest.mark.parametrize("role", ["operator", "auditor", "member"])
def test_every_page_says_that_there_is_nothing_yet(sign_in: SignIn, role: str) -> None:
    """A sentence stands where figures will be, for whoever may see the page."""
    browser = sign_in(role)
    for path, said in SAID.items():
        answer = browser.get(f"/console/{path}")
        if role == "member" and path.startswith(("periods/preview", "holds", "trust/verify")):
            assert 403 == answer.status_code
        else:
            assert said in Document.of(answer, 404 if "none" in path else 200).words


@pytest.mark.parametrize(
    "path",
    [
        "periods/%00",
        "periods/preview?name=%00",
        "periods/preview?name=2026-11&until=0001-01-01T00:00",
        "periods/preview?name=2026-11&until=2026-01-01T00:00%2B02:00",
        "periods/" + "x" * 3000,
        "holds?kind=purse",
        "holds?target=%00",
        "statements?period=%00",
        "statements?client=" + "x" * 300,
        "statements?cursor=x",
        "statements/%00/bank.json",
        "statements/2026-11/%00.json",
        "statements/2026-11/.json",
        "trust/consistency.json",
        "trust/consistency.json?first=0",
        "trust/consistency.json?first=99999999999999999999",
        "trust/proof?response=%00&client=bank",
        "trust/proof.json?client=bank",
    ],
)
@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_whatever_is_asked_is_answered_by_a_page(sign_in: SignIn, path: str) -> None:
    """A name or number that cannot be is told of, and is no failure of the service."""
    answer = sign_in("operator").get(f"/console/{path}")

    assert 500 > answer.status_code
    assert Document.of(answer, answer.status_code).words


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("periods/close", {}),
        ("periods/close", {"name": "2026-11", "typed": "2026-11", "expected": "x"}),
        ("periods/close", {"name": "2026-11", "typed": "2026-11", "expected": "ab" * 32, "until_us": "-1"}),
        ("periods/close", {"name": "2026-11", "typed": "2026-11", "expected": "ab" * 32, "until_us": "2" * 20}),
        ("periods/close", {"name": "\x00", "typed": "\x00", "expected": "ab" * 32}),
        ("periods/2026-11/finalise", {"typed": "2026-11", "expected": "ab" * 32}),
        ("periods/2026-11/finalise", {"typed": "2026-11"}),
        ("periods/2026-11/sell", {}),
        ("holds", {"kind": "response", "target": "\x00", "reason": "x", "confirmed": "yes"}),
        ("holds/%00/release", {"reason": "x", "confirmed": "yes"}),
        ("trust/consistency", {"note": "x" * 30_000}),
        ("trust/consistency", {}),
    ],
)
@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_whatever_is_sent_is_answered_by_a_page(
    sign_in: SignIn, world: World, path: str, typed: dict[str, str]
) -> None:
    """A form that no page of ours sent is told of, too, and does nothing."""
    browser = sign_in("operator")
    answer = browser.post(f"/console/{path}", data=typed | {"csrf": token_of(browser)})

    assert 500 > answer.status_code != 303
    assert Document.of(answer, answer.status_code).words
    assert () == periods.all(world.books.ledger)
