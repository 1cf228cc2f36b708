"""The log, its proofs, and bearer keys over HTTP: what is fetched holds offline, and a secret is told once."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.retention.replays import Replays
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log import proofs
from rewards.log.sealer import register_signing_key
from rewards.signing.keys import SigningKey, VerifyKey
from rewards.signing.notes import open_checkpoint
from tests.deployment.api.conftest import make_receipt
from tests.deployment.api.reading import DATABASES, read, rows
from tests.deployment.api.world import ORIGIN
from tests.deployment.gateway.engines import ScriptedEngine
from tests.deployment.gateway.test_refusals import error_of

pytestmark = pytest.mark.parametrize("url", DATABASES, indirect=True)


@pytest.fixture
def app(
    engine: ScriptedEngine, books: Ledger, keys: KeyRing, replays: Replays, signer: SigningKey, tmp_path: Path
) -> FastAPI:
    """The HTTP surface over eleven receipts, with a signing key."""
    return build_app(engine, Books(books, keys, tmp_path / "signing.key"), replays, default_max_tokens=64)


def test_history_is_proved_to_whoever_kept_a_checkpoint(
    operator: TestClient, member: TestClient, books: Ledger, signer: SigningKey
) -> None:
    """A member keeps a note; what is sealed later extends it, checked with the public key alone."""
    assert "checkpoint_not_found" == error_of(member.get("/api/v1/log/checkpoint"), 404)["code"]
    assert operator.post("/api/v1/log/seal").is_success
    held = read(member, "log/checkpoint")
    books.append(make_receipt(30))
    operator.post("/api/v1/log/seal")
    newer = read(member, "log/checkpoint")
    proof = read(member, "log/consistency", first=held["size"])
    (named,) = (VerifyKey.decode(each["public"]) for each in read(member, "log/keys")["data"])

    assert signer.public == named
    assert newer["size"] > held["size"]
    assert newer["size"] == proofs.verify_consistency(proof, held["note"], [named], ORIGIN).size
    assert newer["root"] == open_checkpoint(newer["note"], [named], ORIGIN).root.hex()
    assert held == read(member, "log/checkpoint", size=held["size"])
    assert "not_in_log" == error_of(member.get("/api/v1/log/consistency?first=9999"), 404)["code"]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("log/checkpoint?sizes=1", "sizes"),
        ("log/checkpoint?size=0", "size"),
        ("log/keys?limit=0", "limit"),
        ("log/inclusion?source=leaf&sequence=1", "source"),
        ("log/inclusion?source=receipt", "sequence"),
        ("log/inclusion?source=receipt&sequence=1&of=1", "of"),
        ("log/consistency", "first"),
        ("log/consistency?first=1&third=2", "third"),
        ("log/consistency?first=2&second=1", "second"),
        ("log/proof/r1?account=bank", "account"),
        ("statements/2026-11/bank?fmt=csv", "fmt"),
    ],
)
def test_a_query_that_cannot_be_is_refused_by_name(operator: TestClient, path: str, param: str) -> None:
    """A parameter that is missing, out of range or not there at all is 400, and never passed over."""
    error = error_of(operator.get(f"/api/v1/{path}"), 400)

    assert param == error["param"]
    assert param in error["message"]


def test_public_keys_come_in_pages(operator: TestClient, books: Ledger, signer: SigningKey) -> None:
    """Page by page it is the same list, in the order in which the keys were registered."""
    named = [signer.public, *(SigningKey.generate(ORIGIN).public for _ in range(2))]
    for key in named:
        register_signing_key(books, key)

    assert [key.encode() for key in named] == [key["public"] for key in rows(operator, "log/keys", limit=1)]
    assert rows(operator, "log/keys") == rows(operator, "log/keys", limit=2)


def test_a_member_proves_its_own_entries(operator: TestClient, member: TestClient, signer: SigningKey) -> None:
    """The proof opens the member's entry and nothing else; of a response without it there is none, whoever is named."""
    operator.post("/api/v1/log/seal")
    document = read(member, "log/proof/r1")
    proved = proofs.verify_receipt_proof(document, [signer.public], ORIGIN)

    assert ("bank", "r1") == (proved.client, proved.response_id)
    assert "clinic" not in str(document)
    assert document == read(operator, "log/proof/r1", client="bank")
    assert "entry_not_found" == error_of(member.get("/api/v1/log/proof/r1?client=clinic"), 404)["code"]
    assert "missing_required_parameter" == error_of(operator.get("/api/v1/log/proof/r1"), 400)["code"]
    assert "entry_not_found" == error_of(operator.get("/api/v1/log/proof/r1?client=port"), 404)["code"]


def test_inclusion_is_for_what_a_member_may_see(operator: TestClient, member: TestClient, books: Ledger) -> None:
    """A receipt with its entry, yes; one without, an event of others, and what is not sealed, no."""
    operator.post("/api/v1/log/seal")
    sealed = read(operator, "log/checkpoint")["size"]
    booked = books.append(make_receipt(31)).sequence

    assert sealed == read(member, "log/inclusion", source="receipt", sequence=1)["size"]
    assert read(member, "log/inclusion", source="receipt", sequence=1) == read(
        operator, "log/inclusion", source="receipt", sequence=1
    )
    assert 404 == member.get("/api/v1/log/inclusion?source=event&sequence=1").status_code
    assert operator.get("/api/v1/log/inclusion?source=event&sequence=1").is_success
    for caller in (member, operator):
        refusal = caller.get(f"/api/v1/log/inclusion?source=receipt&sequence={booked}")
        assert "not_in_log" == error_of(refusal, 404)["code"]
        assert 404 == caller.get(f"/api/v1/log/inclusion?source=receipt&sequence={2**53 - 1}").status_code
        assert 400 == caller.get(f"/api/v1/log/inclusion?source=receipt&sequence={2**53}").status_code


def test_a_key_is_told_once_and_works(admin: TestClient, call_as: Any, keys: KeyRing) -> None:
    """What is made opens what its role may, and no later answer holds its secret."""
    made = admin.post("/api/v1/keys", json={"role": "member", "label": "bank's desk", "client": "bank"})
    secret = made.json()["key"]
    listed = admin.get("/api/v1/keys")

    assert (201, "no-store") == (made.status_code, made.headers["cache-control"])
    assert ["bank"] == [each["id"] for each in read(call_as(secret), "clients")["data"]]
    assert secret.split("_", 2)[2] not in listed.text
    assert "hmac" not in listed.text
    assert {name: value for name, value in made.json().items() if name != "key"} in [
        {**each, "last_used_at_us": None} for each in listed.json()["data"]
    ]


def test_a_key_is_rotated_with_overlap_and_revoked(admin: TestClient, call_as: Any) -> None:
    """The old key works for the overlap, a revoked one no more; a rotated one is not rotated again."""
    old = admin.post("/api/v1/keys", json={"role": "auditor", "label": "a"}).json()
    new = admin.post(f"/api/v1/keys/{old['id']}/rotate", json={"overlap_s": 60})
    again = admin.post(f"/api/v1/keys/{old['id']}/rotate")

    assert (201, old["id"]) == (new.status_code, new.json()["rotated_from"])
    assert "not_rotatable" == error_of(again, 409)["code"]
    for key in (old["key"], new.json()["key"]):
        assert call_as(key).get("/api/v1/credit").is_success
    revoked = admin.delete(f"/api/v1/keys/{new.json()['id']}")
    assert "revoked" == revoked.json()["state"]
    assert (
        revoked.json()
        == admin.delete(f"/api/v1/keys/{new.json()['id']}").json()
        == read(admin, f"keys/{new.json()['id']}")
    )
    assert "key_not_found" == error_of(admin.delete("/api/v1/keys/000000000000"), 404)["code"]


def test_without_overlap_the_old_key_is_refused_at_once(admin: TestClient, keys: KeyRing) -> None:
    """An overlap of no seconds is none, one that is misspelt or out of range rotates nothing; a secret is not kept."""
    old = admin.post("/api/v1/keys", json={"role": "auditor", "label": "a"}).json()
    for wrong in ({"overlap": 0}, {"overlap_s": -1}, {"overlap_s": "0"}, {"overlap_s": 2**40}):
        error_of(admin.post(f"/api/v1/keys/{old['id']}/rotate", json=wrong), 400)
    new = admin.post(f"/api/v1/keys/{old['id']}/rotate", json={"overlap_s": 0})

    assert (201, "no-store") == (new.status_code, new.headers["cache-control"])
    assert keys.verify(old["key"]) is None
    assert keys.verify(new.json()["key"]) is not None


@pytest.mark.parametrize(
    "body",
    [
        {"role": "boss", "label": "x"},
        {"role": "member", "label": "x"},
        {"role": "member", "label": "x", "client": "nobody"},
        {"role": "operator", "label": "x", "client": "bank"},
        {"role": "operator", "label": "x", "token_budget": 1},
        {"role": "application", "label": "x", "token_budget": -1},
        {"role": "application", "label": "x", "requests_per_minute": 0},
        {"role": "application", "label": "x", "concurrency": 0},
        {"role": "operator", "label": "x", "weight": 2},
        {"role": "application", "label": "a\nb"},
        {"role": "application", "label": "x" * 101},
        {"role": "application", "label": "x", "expires_at_us": 1},
        {"role": "application"},
    ],
)
def test_a_key_that_may_not_be_is_not_made(admin: TestClient, keys: KeyRing, body: dict[str, Any]) -> None:
    """An unknown role or client, a limit for another role, a past expiry: 400, and no key."""
    before = len(keys.list())

    assert 400 == admin.post("/api/v1/keys", json=body).status_code
    assert before == len(keys.list())


def test_keys_come_in_pages_and_by_client(admin: TestClient) -> None:
    """Page by page it is the same list, and of one member its own keys."""
    for number in range(4):
        admin.post(
            "/api/v1/keys", json={"role": "member", "label": f"k{number}", "client": ("bank", "clinic")[number % 2]}
        )

    assert rows(admin, "keys") == rows(admin, "keys", limit=2)
    assert ["k1", "k3"] == [key["label"] for key in read(admin, "keys", client="clinic")["data"]]
