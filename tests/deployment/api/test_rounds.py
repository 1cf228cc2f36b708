"""Rounds over the operator API: what was published when, and what its bundle records, in pages."""

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rewards.ledger.ledger import Ledger
from rewards.store import publications
from tests.deployment.api.reading import DATABASES, read, rows
from tests.deployment.conftest import OTHER
from tests.deployment.gateway.engines import CARD
from tests.deployment.recorded_bundles import manifest_document, publish_document

pytestmark = pytest.mark.parametrize("url", DATABASES, indirect=True)


@pytest.fixture
def folder(ledger: Ledger, tmp_path: Path) -> Path:
    """The bundle that is served of the first consortium; there is one before it, and one of another consortium."""
    publish_document(ledger, tmp_path / "first", manifest_document(CARD.name, ["clinic", "bank"], 2), "service")
    publish_document(ledger, tmp_path / "other", manifest_document(OTHER, ["port", "bank"], 1))
    return publish_document(ledger, tmp_path / "second", manifest_document(CARD.name, ["clinic", "bank"], 3))


def test_publications_are_listed(operator: TestClient, member: TestClient, ledger: Ledger, folder: Path) -> None:
    """Oldest first, in pages, with the one that is served; a member gets the same without the places."""
    listed = rows(operator, "rounds", limit=2)
    own = rows(operator, "rounds", consortium=OTHER)

    assert [(CARD.name, 2), (OTHER, 1), (CARD.name, 3)] == [(each["consortium"], each["round"]) for each in listed]
    assert [False, True, True] == [each["served_since_us"] is not None for each in listed]
    assert str(folder) == listed[2]["bundle"]
    assert [listed[1]] == own
    assert [{**each, "bundle": None} for each in listed] == rows(member, "rounds")


def test_a_rollback_is_told(operator: TestClient, ledger: Ledger, folder: Path) -> None:
    """When it was and by whom; the one before is served since that moment."""
    with ledger.database.write() as connection:
        publications.withdraw(connection, CARD.name, "command line")
    first, last = rows(operator, "rounds", consortium=CARD.name)

    assert "command line" == last["withdrawn_by"]
    assert first["published_at_us"] < last["withdrawn_at_us"] == first["served_since_us"]
    assert None is last["served_since_us"]


def test_rounds_are_read_in_pages(operator: TestClient, folder: Path) -> None:
    """The last first; `next_before` leads to those before."""
    publication = rows(operator, "rounds")[-1]
    path, seen = f"rounds/{publication['id']}", []
    before: int | None = None
    while True:
        record = read(operator, path, limit=2, **({} if before is None else {"before": before}))
        assert publication == record["publication"]
        seen += [each["round"] for each in record["rounds"]]
        before = record["next_before"]
        if before is None:
            break

    assert [3, 2, 1] == seen
    assert (3, None, {"bank": 3}) == (record["recorded"], record["problem"], record["unsigned"])
    clinic, bank = record["rounds"][0]["updates"]
    assert ("clinic", 0.5, 1.0, "holds", True) == tuple(
        clinic[name] for name in ("client", "weight", "norm", "signature", "has_receipt")
    )
    assert ("bank", "none", False) == tuple(bank[name] for name in ("client", "signature", "has_receipt"))


def test_a_member_reads_its_own_updates(member: TestClient, folder: Path) -> None:
    """In every round, and counts of its own; no ratio to what all changed, of which it could take its own away."""
    record = read(member, f"rounds/{rows(member, 'rounds')[-1]['id']}")

    assert [["bank"]] * 3 == [[update["client"] for update in each["updates"]] for each in record["rounds"]]
    assert {"bank": 3} == record["unsigned"]
    assert [(0.375, None)] * 3 == [(each["residual_norm"], each["residual_ratio"]) for each in record["rounds"]]


def test_a_bundle_that_is_gone_has_a_problem(operator: TestClient, folder: Path) -> None:
    """And no rounds; no path is named in it."""
    publication = rows(operator, "rounds")[-1]["id"]
    shutil.rmtree(folder)
    record = read(operator, f"rounds/{publication}")

    assert record["problem"].startswith("the bundle's folder is gone")
    assert (None, [], None) == (record["recorded"], record["rounds"], record["next_before"])
    assert str(folder) not in record["problem"]


def test_what_was_not_published_is_not_found(operator: TestClient, folder: Path) -> None:
    """An event of another kind is no publication."""
    answers = [operator.get(f"/api/v1/rounds/{number}") for number in (0, 1, 2**53 - 1)]

    assert [404] * 3 == [answer.status_code for answer in answers]
    assert {"publication_not_found"} == {answer.json()["error"]["code"] for answer in answers}
