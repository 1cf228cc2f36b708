"""A payout explained in the console: the same lines as on the command line, and a member's own alone."""

from deployment.books.explanations import explain_payout, readable_amount
from tests.deployment.api.world import World
from tests.deployment.console.conftest import SignIn
from tests.deployment.console.documents import Document


def test_a_payout_is_explained_on_a_page_as_on_the_command_line(sign_in: SignIn, world: World) -> None:
    """Every line with the amount that the service function gives; linked from the period, a member's from its own."""
    told = explain_payout(world.books.ledger, None, "second", "bank")
    for role in ("operator", "member"):
        browser = sign_in(role)
        links = [each for each in Document.of(browser.get("/console/periods/second")).links if "/explanation/" in each]
        page = Document.of(browser.get("/console/periods/second/explanation/bank"))
        shown = {row[0]: row[1] for row in page.table("Every line").rows[1:]}

        assert {"operator": 4, "member": 1}[role] == len(links)
        assert "/console/periods/second/explanation/bank" in links
        assert {step.name: readable_amount(step, told.currency, told.minor_digits) for step in told.steps} == shown
    assert 404 == sign_in("member").get("/console/periods/second/explanation/clinic").status_code


def test_what_was_reversed_stands_with_the_explanation(sign_in: SignIn) -> None:
    """Of the client whose credit it took, with the period in which it had counted."""
    page = Document.of(sign_in("auditor").get("/console/periods/second/explanation/clinic"))

    assert [["clinic-again", "second"]] == [row[:2] for row in page.table("Reversed responses").rows[1:]]


def test_the_commons_is_explained_to_whoever_sees_everybody_s(sign_in: SignIn, world: World) -> None:
    """Operators and auditors find its page by the period's, without a list of reversed responses; a member has none."""
    told = explain_payout(world.books.ledger, None, "second", "commons")
    for role in ("operator", "auditor"):
        browser = sign_in(role)
        place = "/console/periods/second/explanation/commons"
        assert place in Document.of(browser.get("/console/periods/second")).links
        page = browser.get(place)
        shown = {row[0]: row[1] for row in Document.of(page).table("Every line").rows[1:]}

        assert {step.name: readable_amount(step, told.currency, told.minor_digits) for step in told.steps} == shown
        assert "Reversed responses" not in page.text
    assert 404 == sign_in("member").get("/console/periods/second/explanation/commons").status_code
