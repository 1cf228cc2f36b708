"""Calibrations over the operator API: the latest of each model, to members too, and proved by the signed log."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.retention.replays import Replays
from rewards.credit import canonical_bytes
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log import leaves, proofs
from rewards.signing.keys import SigningKey
from tests.deployment.api.reading import DATABASES, read, rows
from tests.deployment.api.world import ORIGIN
from tests.deployment.calibrations import book_report, report_of
from tests.deployment.conftest import OTHER
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.gateway.test_refusals import error_of

pytestmark = pytest.mark.parametrize("url", DATABASES, indirect=True)

FIRST, SECOND = CARD.global_sha256, "12" * 32
FOREIGN = "school"


@pytest.fixture
def app(
    engine: ScriptedEngine, ledger: Ledger, keys: KeyRing, replays: Replays, signer: SigningKey, tmp_path: Path
) -> FastAPI:
    """The HTTP surface with a signing key."""
    return build_app(engine, Books(ledger, keys, tmp_path / "signing.key"), replays, default_max_tokens=64)


@pytest.fixture
def booked(ledger: Ledger) -> list[int]:
    """Five calibrations: two of one model, one of another, one of another consortium, and of one without the bank."""
    ledger.register(FOREIGN, {"teacher": "A teacher"})
    return [
        book_report(ledger, report)
        for report in (
            report_of(CARD.name, FIRST),
            report_of(CARD.name, SECOND),
            report_of(CARD.name, FIRST, responses=99),
            report_of(OTHER, FIRST),
            report_of(FOREIGN, FIRST),
        )
    ]


def test_nothing_was_calibrated(operator: TestClient, member: TestClient) -> None:
    """As in every ledger from before: an empty list."""
    assert [] == rows(operator, "log/calibrations") == rows(member, "log/calibrations")


def test_the_latest_of_each_model_is_listed(operator: TestClient, booked: list[int]) -> None:
    """By the numbers of their events, in pages, and of one consortium where that is asked for."""
    listed = rows(operator, "log/calibrations", limit=2)
    own = rows(operator, "log/calibrations", consortium=CARD.name)

    assert booked[1:] == [each["sequence"] for each in listed]
    assert [SECOND, FIRST, FIRST, FIRST] == [each["report"]["model_sha256"] for each in listed]
    assert listed[:2] == own
    assert report_of(CARD.name, FIRST, responses=99).model_dump(mode="json") == own[1]["report"]
    assert [] == rows(operator, "log/calibrations", consortium="nobody")


def test_a_member_sees_those_of_its_consortia(operator: TestClient, member: TestClient, booked: list[int]) -> None:
    """Whole, as an operator does: nothing in them is another's."""
    assert rows(operator, "log/calibrations")[:-1] == rows(member, "log/calibrations")
    assert [] == rows(member, "log/calibrations", consortium=FOREIGN)


def test_a_calibration_is_proved(
    operator: TestClient, member: TestClient, booked: list[int], signer: SigningKey
) -> None:
    """From what a member is told its leaf follows, and that this is in the signed log; a figure more and it is not."""
    assert operator.post("/api/v1/log/seal").is_success
    told = rows(member, "log/calibrations")[0]
    proof = read(member, "log/inclusion", source="event", sequence=told["sequence"])
    document = {"inclusion": {name: proof[name] for name in ("leaf_index", "size", "hashes")}, **proof}

    def leaf(report: dict[str, object]) -> bytes:
        event = {
            "sequence": told["sequence"],
            "kind": "calibration",
            "subject": report["consortium"],
            "at_us": told["booked_at_us"],
            "actor": told["booked_by"],
            "document": canonical_bytes(report).decode(),
            "salt": told["salt"],
            "once": told["once"],
        }
        return leaves.event_leaf(event)

    checkpoint = proofs.require_included(leaf(told["report"]), document, [signer.public], ORIGIN)

    assert proof["size"] == checkpoint.size
    with pytest.raises(proofs.LogError):
        proofs.require_included(leaf({**told["report"], "responses": 61}), document, [signer.public], ORIGIN)


def test_a_member_proves_none_of_strangers(operator: TestClient, member: TestClient, booked: list[int]) -> None:
    """One of a consortium that it is not in is to it as an event that is not there."""
    operator.post("/api/v1/log/seal")

    assert read(operator, "log/inclusion", source="event", sequence=booked[-1])["size"]
    answer = member.get(f"/api/v1/log/inclusion?source=event&sequence={booked[-1]}")
    assert "not_in_log" == error_of(answer, 404)["code"]


def test_an_unknown_parameter_is_refused(operator: TestClient) -> None:
    """By its name."""
    assert "model" == error_of(operator.get("/api/v1/log/calibrations?model=x"), 400)["param"]
