"""The console of a service in which nothing has happened yet: each page says what will be there, and nothing fails."""

import pytest

from deployment.operator import Books
from rewards import KeyRing, Ledger
from tests.deployment.console.conftest import SignIn
from tests.deployment.console.documents import Document
from tests.deployment.operator.world import ROLES, World

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
