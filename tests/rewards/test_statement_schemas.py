"""Statements explain themselves since their fourth schema; those of before verify, and are issued, as they were."""

import json
import shutil
from pathlib import Path

import pytest

from deployment.books import statement_page
from deployment.schemas.explained_statements import ExplainedStatement
from deployment.schemas.statements import SampledStatement, Statement
from rewards import periods, statements
from rewards.audit.replay import audit
from rewards.errors import SignatureError
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.settlement.policy import Policy
from tests.rewards.audit.test_audit_settlements import rewrite
from tests.rewards.books import KEY, ORIGIN
from tests.rewards.receipts import MEMBERS, make_receipt

BEFORE = Path(__file__).parents[1] / "fixtures" / "statements_2_and_3"
POLICY = {
    "currency": "EUR",
    "price_per_million_tokens": 10**9,
    "fee_percent": "2.5",
    "holdback_percent": 10,
    "holdback_release_after": 3,
    "caps": {"clinic": "37.5", "rider": 5},
    "commons": "distribute",
}


@pytest.fixture
def before(tmp_path) -> str:
    """The ledger of before, in a place of its own."""
    shutil.copy(BEFORE / "ledger.db", tmp_path / "ledger.db")
    return f"sqlite:///{tmp_path}/ledger.db"


def issued(ledger: Ledger, period: str, client: str) -> dict:
    """A statement as the ledger gives it."""
    with ledger.database.read() as connection:
        return statements.issue(connection, period, client, KEY)


def body_of(document: dict) -> dict:
    """What of a statement does not differ from issue to issue."""
    return {name: value for name, value in document.items() if name not in ("signature", "log")}


@pytest.mark.parametrize("client", MEMBERS)
@pytest.mark.parametrize(("period", "schema"), [("2026-09", Statement), ("2026-10", SampledStatement)])
def test_statements_of_before_verify_and_are_issued_alike(before, period, schema, client):
    """By today's code, from their files and from the ledger; they are shown, and told by the API, as what they are."""
    document = statements.load((BEFORE / "statements" / f"{period}-{client}.json").read_bytes())
    again = issued(Ledger(before), period, client)

    assert (period, client) == (statements.verify(document, [KEY.public], ORIGIN).period, document["client"])
    assert body_of(document) == body_of(again)
    assert schema.model_validate(document).schema_ == document["schema"]
    assert (
        statement_page.percent(document["share"]) == dict(statement_page.rows(document))["Part of what is shared out"]
    )
    assert "How it was settled" not in statement_page.page(document)


def test_books_with_statements_of_every_schema_are_audited(before):
    """Periods that follow are explained; the audit rebuilds old and new statements, and takes no old one later."""
    ledger = Ledger(before)
    ledger.reverse("r0", "a test question", "me")
    ledger.append(make_receipt("r9"))
    periods.close(ledger, "2026-11", Policy.from_mapping(POLICY), "me")
    report = audit(before)
    with ledger.database.read() as connection:
        (later,) = statements.find_statements(connection, period="2026-11", client="rider", limit=1)
    rewrite(before, later.sequence, {**later.document, "schema": "protoken.statement/2"})

    assert report.is_ok
    assert ("events", later.sequence, "document.schema") == (
        audit(before).difference.table,
        audit(before).difference.key,
        audit(before).difference.field,
    )


def test_a_statement_explains_itself(ledger):
    """Shares and parts with what they are of, the policy without others' terms, cap, return, reversals, rounding."""
    for name in ("a", "b", "c"):
        ledger.append(make_receipt(name))
    ledger.reverse("c", "a test question", "me")
    periods.close(ledger, "p1", Policy.from_mapping(POLICY), "me")
    ledger.reverse("a", "a test question", "me")
    ledger.append(make_receipt("d"))
    periods.close(ledger, "p2", Policy.from_mapping(POLICY), "me")
    seal(ledger, KEY, ORIGIN)
    first, second = (issued(ledger, name, "clinic") for name in ("p1", "p2"))

    assert ("7000000", "14000000") == (first["share"]["numerator"], first["share"]["denominator"])
    assert ("3", "8") == (first["part"]["numerator"], first["part"]["denominator"])
    assert "all credit of the period" in first["share"]["of"] and "distributable" in first["part"]["of"]
    assert ("37.5", 3, "10") == (
        first["cap_percent"],
        first["policy"]["holdback_release_after"],
        first["policy"]["holdback_percent"],
    )
    assert not {"caps", "fees"} & set(first["policy"])
    assert [{"released_in": 4, "amount": first["money"]["holdback"]}] == first["holdbacks"]
    assert [{"response_id": "c", "period": "p1", "credit": "3500000"}] == first["reversed"]
    assert [{"response_id": "a", "period": "p1", "credit": "3500000"}] == second["reversed"]
    assert [second["money"]["clawback"]] == [each["amount"] for each in second["clawbacks"]]
    assert all("rounded down" in first["rounding"][name] for name in ("fee", "holdback"))
    assert all("largest remainder" in first["rounding"][name] for name in ("gross", "part"))
    for document in (first, second, issued(ledger, "p2", "rider")):
        assert document == ExplainedStatement.model_validate(document).model_dump(mode="json")
        assert statements.verify(document, [KEY.public], ORIGIN).client == document["client"]
        assert "bank" not in json.dumps(document)
    assert audit(ledger.database.url).is_ok


def test_a_statement_is_shown_with_what_it_was_settled_by(ledger):
    """On its page and on the command line: policy, cap, when the holdback returns, what was reversed."""
    for number in range(statement_page.MOST_REVERSALS + 4):
        ledger.append(make_receipt(f"r{number}"))
    for number in range(statement_page.MOST_REVERSALS + 2):
        ledger.reverse(f"r{number}", "a test question", "me")
    periods.close(ledger, "p1", Policy.from_mapping(POLICY), "me")
    seal(ledger, KEY, ORIGIN)
    document = issued(ledger, "p1", "clinic")
    shown, page = dict(statement_page.rows(document)), statement_page.page(document)

    assert "37.5 % of what is shared out" in shown["Cap"]
    assert "it returns in period number 4" in shown["Kept back"]
    assert "50.0000 %, 7\u202f000\u202f000 of 14\u202f000\u202f000" == shown["Share of all credit"]
    assert "37.5000 %" == shown["Part of what is shared out"]
    assert "3,500,000 of p1" == shown["Credit of r9, reversed"]
    assert "Credit of r7, reversed" in page and "Credit of r8, reversed" not in page
    assert "2 more, in the statement as JSON" in page


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("share", "denominator"), "13000000", "is not that of the credit"),
        (("cap_percent",), "37.4", "above the cap of 37.4 %"),
        (("policy", "holdback_percent"), "11", "is not 11 % of the gross"),
        (("part", "numerator"), "1", "is not part 1/8"),
    ],
)
def test_a_statement_whose_words_are_not_its_figures_is_refused(ledger, path, value, told):
    """Also where somebody could sign it and put it into the log: the arithmetic is checked, not believed."""
    ledger.append(make_receipt("a"))
    ledger.append(make_receipt("b"))
    periods.close(ledger, "p1", Policy.from_mapping(POLICY), "me")
    seal(ledger, KEY, ORIGIN)
    document = issued(ledger, "p1", "clinic")
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(SignatureError, match=told):
        statements._check_part(document)
