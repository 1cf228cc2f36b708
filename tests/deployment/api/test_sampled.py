"""Where a part of the responses is measured, the API tells what is pending, how it was settled, and how surely."""

from decimal import Decimal
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.books.statement_page import page, rows
from deployment.retention.replays import Replays
from deployment.schemas.explained_statements import ExplainedStatement
from rewards import periods, statements
from rewards.audit.replay import audit
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.settlement.policy import Policy
from rewards.signing.keys import SigningKey
from tests.deployment.api.reading import DATABASES, read
from tests.deployment.api.sampled import sample
from tests.deployment.api.world import ORIGIN
from tests.deployment.cli.test_ledger import run
from tests.deployment.gateway.engines import ScriptedEngine

pytestmark = pytest.mark.parametrize("url", DATABASES, indirect=True)
POLICY = Policy(pool=10_000, currency="EUR")


@pytest.fixture
def app(
    engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, replays: Replays, signer: SigningKey, tmp_path: Path
) -> FastAPI:
    """The HTTP surface over an empty ledger, with a signing key."""
    return build_app(engine, Books(ledger, keys, tmp_path / "signing.key"), replays, default_max_tokens=64)


@pytest.fixture
def pending(ledger: Ledger) -> int:
    """Micro-credits that are pending after forty responses, of which a third is measured; the period is open."""
    receipts = sample(ledger, "0.33", 40)
    return sum(receipt.amounts.get("pending", 0) for receipt in receipts)


def test_what_is_pending_is_an_account_of_the_open_period(
    operator: TestClient, member: TestClient, pending: int
) -> None:
    """Its credit and share stand beside the clients' and the commons', and all sum to 1; a member sees its own."""
    accounts = {line["account"]: line for line in read(operator, "shares")["accounts"]}

    assert str(pending) == accounts["pending"]["credit"] == read(operator, "credit")["balances"]["pending"]
    assert abs(sum(line["share"] for line in accounts.values()) - 1) < 1e-12
    assert {frozenset(("account", "credit", "share"))} == {frozenset(line) for line in accounts.values()}
    assert ["pending"] == [line["account"] for line in read(operator, "shares", client="pending")["accounts"]]
    assert ["bank"] == [line["account"] for line in read(member, "shares")["accounts"]]
    assert 404 == member.get("/api/v1/shares?client=pending").status_code


def test_a_closed_period_tells_how_it_was_settled(
    operator: TestClient, member: TestClient, ledger: Ledger, pending: int
) -> None:
    """Settled credit sums to what was pending; each account has its standard error, in shares and in the settlement."""
    settlement = periods.close(ledger, "2026-11", POLICY, "test")
    shown = read(operator, "periods/2026-11")["settlement"]
    accounts = {line["account"]: line for line in read(operator, "shares", period="2026-11")["accounts"]}

    assert settlement.to_document()["sampling"] == without_nulls(shown["sampling"])
    assert pending == sum(int(line["settled_credit"]) for line in accounts.values())
    for line in shown["lines"]:
        if line["account"] not in accounts:
            assert "0" == line["credit"]
            continue
        told = accounts[line["account"]]

        assert int(line["credit"]) == int(told["credit"]) + int(told["settled_credit"])
        assert shown["sampling"]["standard_errors"].get(line["account"], "0.000000000000") == told["standard_error"]
    assert Decimal(accounts["bank"]["standard_error"]) > 0
    assert accounts["bank"] == read(member, "shares", period="2026-11")["accounts"][0]
    narrowed = read(operator, "shares", period="2026-11", model=shown["sampling"]["strata"][0]["consortium"])
    assert not any("settled_credit" in line for line in narrowed["accounts"])


def without_nulls(sampling: dict) -> dict:
    """What the API tells, without the application that there is none of."""
    strata = [{name: value for name, value in each.items() if value is not None} for each in sampling["strata"]]
    return {**sampling, "strata": strata}


def test_a_statement_tells_what_was_measured(
    member: TestClient, ledger: Ledger, signer: SigningKey, pending: int, url: str
) -> None:
    """The member's statement verifies, in JSON and on its page, with the error of its share; so do the books."""
    settlement = periods.close(ledger, "2026-11", POLICY, "test")
    seal(ledger, signer, ORIGIN)
    document = member.get("/api/v1/statements/2026-11/bank").json()
    statements.verify(document, [signer.public])
    assert document == ExplainedStatement.model_validate(document).model_dump(mode="json")

    assert "protoken.statement/4" == document["schema"]
    assert settlement.sampling is not None
    assert {
        "responses": 40,
        "measured_responses": settlement.sampling.responses[1],
        "pending_credit": str(pending),
        "settled_credit": str(settlement.sampling.settled["bank"]),
        "standard_error": settlement.sampling.standard_errors["bank"],
        "untold_credit": "0",
    } == document["sampling"]
    error = f"± {100 * float(document['sampling']['standard_error']):.4f} %"
    assert error == dict(rows(document))["Standard error, of all credit"]
    assert error in page(document)
    assert audit(url).is_ok


def test_the_command_line_tells_it_too(
    ledger: Ledger, url: str, pending: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Balances show what is pending; a settlement's table is followed by what was settled, and how surely."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("currency: EUR\npool: 10000\n", encoding="utf-8")
    _, balances, _ = run(capsys, "ledger", "balances", "--ledger", url)
    code, shown, _ = run(capsys, "period", "preview", "2026-11", "--policy", policy, "--ledger", url)

    assert "pending" in balances
    assert 0 == code
    assert "settled by" in shown and "of 40" in shown and "standard error" in shown
