"""Where a part of the responses is measured, pages show what is pending and how it was settled."""

from pathlib import Path

import pytest

from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.sampled import sample
from tests.deployment.api.world import World, make_world
from tests.deployment.console.conftest import SignIn
from tests.deployment.console.test_overview import plain


@pytest.fixture
def world(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> World:
    """Books in whose first, final period a part was measured, and in the open one too."""
    sample(ledger, "0.5", 30, "before")
    made = make_world(ledger, keys, tmp_path)
    sample(ledger, "0.5", 30, "after")
    return made


def test_the_overview_shows_what_is_pending(sign_in: SignIn) -> None:
    """An operator sees it beside the commons, and in the chart; a member sees nothing of it."""
    page = plain(sign_in("operator").get("/console/").text)

    assert "Pending not measured; settled by what was" in page
    assert "Pending" not in plain(sign_in("member").get("/console/").text)


def test_a_period_shows_how_what_was_not_measured_was_settled(sign_in: SignIn) -> None:
    """The settlement is followed by what each account has of it, with its standard error; a member sees none."""
    page = plain(sign_in("operator").get("/console/periods/first").text)

    assert "Measured and settled" in page and "of 30 responses were measured" in page
    assert "±" in page
    assert "Measured and settled" not in plain(sign_in("member").get("/console/periods/first").text)


def test_a_response_that_was_not_measured_says_so(sign_in: SignIn, ledger: Ledger) -> None:
    """Its page says that its credit is pending, and that no client earned yet."""
    pending = next(each for each in ledger.receipts_after(0) if "pending" in each.amounts)
    operator = sign_in("operator")
    page = plain(operator.get(f"/console/responses/{pending.response_id}").text)

    assert "It was not measured: its credit is pending" in page
    assert "Clients earned 0.0 %" in page or "Clients earned 0 %" in page
    assert 200 == operator.get("/console/responses?client=pending").status_code
