"""Periods, holds and statements over HTTP: the same moves as on the command line, by whoever may, each once."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.app.http_app import build_app
from deployment.books.books import Books
from deployment.retention.replays import Replays
from deployment.schemas.explained_statements import ExplainedStatement
from deployment.schemas.periods import Settlement
from rewards import periods, statements
from rewards.credit import canonical_bytes
from rewards.errors import SignatureError
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.signing.keys import SigningKey
from rewards.store import events
from rewards.store.database import now_us
from tests.deployment.api.conftest import make_receipt
from tests.deployment.api.reading import DATABASES, read
from tests.deployment.api.world import ORIGIN
from tests.deployment.cli.test_ledger import run
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.deployment.gateway.test_refusals import error_of

pytestmark = pytest.mark.parametrize("url", DATABASES, indirect=True)
POLICY = {"currency": "EUR", "pool": 10_007, "holdback_percent": 10, "dispute_days": 0}
DRAFT = {**POLICY, "dispute_days": 7}


@pytest.fixture
def app(
    engine: ScriptedEngine, books: Ledger, keys: KeyRing, replays: Replays, signer: SigningKey, tmp_path: Path
) -> FastAPI:
    """The HTTP surface over eleven receipts, with a signing key and a policy of its own."""
    (tmp_path / "policy.yaml").write_text(json.dumps(POLICY), encoding="utf-8")
    all_of_it = Books(books, keys, tmp_path / "signing.key", tmp_path / "policy.yaml")
    return build_app(engine, all_of_it, replays, default_max_tokens=64)


def post(caller: TestClient, path: str, **body: Any) -> dict[str, Any]:
    """The body of a POST that succeeds."""
    answer = caller.post(f"/api/v1/{path}", json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_period_goes_its_whole_way(operator: TestClient, books: Ledger) -> None:
    """Previewed, closed by the service's policy, paid: each move is in the books with the key that made it."""
    shown = post(operator, "periods/2026-11/preview")
    assert [] == read(operator, "periods")["data"], "a preview changed something"
    closed = post(operator, "periods/2026-11/close")
    paid = post(operator, "periods/2026-11/pay", reference="SEPA 4711")
    stored = periods.get(books, "2026-11")
    assert stored is not None

    assert shown["settlement"] == closed["settlement"]
    told = Settlement.model_validate({**stored.settlement.to_document(), "sha256": stored.settlement.sha256})
    assert told.model_dump(mode="json") == closed["settlement"]
    assert 10_007 == sum(int(line["gross"]) for line in closed["settlement"]["lines"]) + int(closed["fee"])
    assert ["draft", "final", "paid"] == [move["state"] for move in paid["moves"]]
    assert "SEPA 4711" == paid["moves"][-1]["note"]
    with books.database.read() as connection:
        (event,) = events.find(connection, kinds=["period.paid"])
    assert event.actor == paid["moves"][-1]["actor"]
    assert paid == read(operator, "periods/2026-11") == read(operator, "periods")["data"][0]


def test_a_draft_is_disputed_held_and_previewed_before_it_is_final(operator: TestClient, books: Ledger) -> None:
    """A hold disputes the draft, the preview shows what it changes, and dispute days are waited for."""
    draft = post(operator, "periods/2026-11/close", policy=DRAFT)
    hold = post(operator, "holds", kind="client", target="bank", reason="its data are audited")
    shown = post(operator, "periods/2026-11/preview")
    refusal = error_of(operator.post("/api/v1/periods/2026-11/finalise"), 409)

    assert "draft" == draft["state"]
    assert "disputed" == read(operator, "periods/2026-11")["state"]
    assert "draft of 2026-11" == shown["compared_with"]
    payout = next(int(line["payout"]) for line in draft["settlement"]["lines"] if line["account"] == "bank")
    assert -payout == int(shown["difference"]["bank"]) != 0
    assert "period_state" == refusal["code"]
    assert "may be disputed until" in refusal["message"]
    released = post(operator, f"holds/{hold['id']}/release", reason="the audit found nothing")
    assert released["released_at_us"] is not None
    assert [released] == read(operator, "holds", active=False)["data"]
    assert [] == read(operator, "holds", active=True)["data"]
    assert (
        "hold_state"
        == error_of(operator.post(f"/api/v1/holds/{hold['id']}/release", json={"reason": "x"}), 409)["code"]
    )


def test_what_was_previewed_is_closed_or_nothing_is(operator: TestClient, books: Ledger) -> None:
    """Who sends the hash of a preview closes just that: 409 when the books have moved, and a hash it must be."""
    until = {"until_us": now_us()}
    seen = post(operator, "periods/2026-11/preview", **until)["settlement"]
    for wrong, status, code in (("ab" * 32, 409, "period_moved"), ("AB" * 32, 400, "invalid_value")):
        answer = operator.post("/api/v1/periods/2026-11/close", json={**until, "expected_sha256": wrong})
        assert code == error_of(answer, status)["code"]
    assert [] == read(operator, "periods")["data"]
    books.append(make_receipt(30))

    assert seen == post(operator, "periods/2026-11/close", **until, expected_sha256=seen["sha256"])["settlement"]


def test_a_draft_is_finalised_as_previewed_or_not_at_all(operator: TestClient) -> None:
    """With the hash of another settlement a draft whose dispute days are over stays what it is."""
    post(operator, "periods/2026-11/close", policy=DRAFT)
    refusal = error_of(operator.post("/api/v1/periods/2026-11/finalise", json={"expected_sha256": "ab" * 32}), 409)

    assert "period_state" == refusal["code"]
    assert "draft" == read(operator, "periods/2026-11")["state"]


def test_of_many_who_close_one_wins(app: FastAPI, keys: KeyRing, books: Ledger) -> None:
    """Eight callers close the same period at once: one is told 201, the others 409, and it is closed once."""
    callers = [
        TestClient(app, headers={"Authorization": f"Bearer {keys.create('operator', f'o{n}', actor='test')}"})
        for n in range(8)
    ]
    with ThreadPoolExecutor(len(callers)) as pool:
        answers = list(pool.map(lambda caller: caller.post("/api/v1/periods/2026-11/close", json={}), callers))

    assert [201] + [409] * 7 == sorted(answer.status_code for answer in answers)
    assert {"period_closed"} == {answer.json()["error"]["code"] for answer in answers if answer.status_code == 409}
    assert 1 == len(periods.all(books))


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("periods/p/close", {"policy": {"currency": "EUR"}}, 400, "invalid_policy"),
        ("periods/p/close", {"policy": {"currency": "EUR", "pool": -1}}, 400, "invalid_policy"),
        ("periods/p/close", {"policy": {"currency": "EUR", "pool": 1, "caps": {"nobody": 1}}}, 400, "invalid_policy"),
        ("periods/p/close", {"until_us": -1}, 400, "invalid_value"),
        ("periods/p/close", {"until_us": 2**53 - 1}, 409, "period_state"),
        ("periods/p/close", {"untill_us": 1}, 400, "invalid_value"),
        ("periods/p%20p/close", {}, 400, "invalid_value"),
        ("periods/p/dispute", {"reason": "x"}, 404, "period_not_found"),
        ("periods/p/finalise", {}, 404, "period_not_found"),
        ("periods/p/pay", {"reference": "x"}, 404, "period_not_found"),
        ("periods/p/pay", {"reference": " "}, 400, "invalid_value"),
        ("holds", {"kind": "client", "target": "nobody", "reason": "x"}, 404, "client_not_found"),
        ("holds", {"kind": "response", "target": "none", "reason": "x"}, 404, "response_not_found"),
        ("holds", {"kind": "response", "target": "r4", "reason": "x"}, 409, "hold_state"),
        ("holds", {"kind": "purse", "target": "bank", "reason": "x"}, 400, "invalid_value"),
        ("holds", {"kind": "client", "target": "bank", "reason": "a\nb"}, 400, "invalid_value"),
        ("holds/hold-7/release", {"reason": "x"}, 404, "hold_not_found"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    operator: TestClient, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    """A wrong policy, moment, name, reason or state is an error that says so, and nothing is written."""
    before = read(operator, "periods"), read(operator, "holds")

    assert code == error_of(operator.post(f"/api/v1/{path}", json=body), status)["code"]
    assert before == (read(operator, "periods"), read(operator, "holds"))


def test_an_empty_period_is_not_closed(operator: TestClient) -> None:
    """Where nothing was booked since the last period no pool is paid, and only what falls due makes a period."""
    post(operator, "periods/first/close")
    refused = error_of(operator.post("/api/v1/periods/second/close", json={}), 409)
    no_pool = {"policy": {**POLICY, "pool": 0}}
    second = post(operator, "periods/second/close", **no_pool)

    assert ("period_empty", True) == (refused["code"], "with pool: 0 it pays what falls due" in refused["message"])
    assert any(line["released_holdback"] not in (0, "0") for line in second["settlement"]["lines"])
    assert "period_empty" == error_of(operator.post("/api/v1/periods/third/close", json=no_pool), 409)["code"]


def test_a_member_sees_its_own_line_of_a_period(operator: TestClient, member: TestClient) -> None:
    """The sums that its statement tells too, its own line, and no reason, number of others' receipts or settlement."""
    whole = post(operator, "periods/2026-11/close")
    seen = read(member, "periods/2026-11")

    assert next(line for line in whole["settlement"]["lines"] if line["account"] == "bank") == seen["own"]
    assert {None} == {seen[name] for name in ("settlement", "deferred", "left_out", "taken_in")}
    assert {None} == {move["note"] for move in seen["moves"]}
    assert [seen] == read(member, "periods")["data"]
    assert (whole["pool"], whole["settlement_sha256"]) == (seen["pool"], seen["settlement_sha256"])


def test_periods_come_in_pages(operator: TestClient, books: Ledger) -> None:
    """Page by page it is the same list."""
    for number in range(3):
        books.append(make_receipt(20 + number))
        post(operator, f"periods/p{number}/close")
    first = read(operator, "periods", limit=2)
    second = read(operator, "periods", limit=2, cursor=first["next_cursor"])

    assert ["p0", "p1", "p2"] == [period["name"] for period in first["data"] + second["data"]]
    assert second["next_cursor"] is None
    assert (
        "invalid_cursor"
        == error_of(operator.get("/api/v1/holds", params={"cursor": first["next_cursor"]}), 400)["code"]
    )


def test_a_statement_is_there_once_its_period_is_sealed(
    operator: TestClient, member: TestClient, books: Ledger, signer: SigningKey
) -> None:
    """Before the seal it is 503 and when to come back; after it, what is fetched verifies offline, byte for byte."""
    post(operator, "periods/2026-11/close")
    early = member.get("/api/v1/statements/2026-11/bank")
    seal(books, signer, ORIGIN)
    fetched = member.get("/api/v1/statements/2026-11/bank")
    checked = statements.verify(statements.load(fetched.content), [signer.public], ORIGIN)

    assert ("not_sealed_yet", "10") == (error_of(early, 503)["code"], early.headers["retry-after"])
    assert canonical_bytes(fetched.json()) == fetched.content
    assert ("2026-11", "bank", 5) == (checked.period, checked.client, len(checked.checks))
    assert fetched.json() == ExplainedStatement.model_validate_json(fetched.content).model_dump(mode="json")
    assert "attachment; filename*=UTF-8''statement-2026-11-bank.json" == fetched.headers["content-disposition"]
    (entry,) = read(member, "statements")["data"]
    assert (entry["client"], entry["payout"]) == ("bank", fetched.json()["money"]["payout"])
    assert {"bank", "clinic", "port"} == {each["client"] for each in read(operator, "statements")["data"]}
    assert ["clinic"] == [
        each["client"] for each in read(operator, "statements", period="2026-11", client="clinic")["data"]
    ]


def test_a_client_whose_name_differs_in_case_is_another(
    operator: TestClient, member: TestClient, books: Ledger, signer: SigningKey
) -> None:
    """The bank's key lists and fetches the statements of the bank, and none of the BANK."""
    books.register(CARD.name, {"BANK": "Another bank"})
    post(operator, "periods/2026-11/close")
    seal(books, signer, ORIGIN)

    assert ["bank"] == [entry["client"] for entry in read(member, "statements")["data"]]
    assert [] == read(member, "statements", client="BANK")["data"]
    assert 404 == member.get("/api/v1/statements/2026-11/BANK").status_code
    assert ["BANK"] == [entry["client"] for entry in read(operator, "statements", client="BANK")["data"]]


def test_a_statement_that_was_altered_anywhere_does_not_verify(
    operator: TestClient, books: Ledger, signer: SigningKey
) -> None:
    """Each field of a fetched statement in turn, at any depth: one changed letter or digit is found."""
    post(operator, "periods/2026-11/close")
    post(operator, "log/seal")
    document = operator.get("/api/v1/statements/2026-11/clinic").json()
    places = list(leaves_of(document))

    assert len(places) > 60
    for place in places:
        altered = json.loads(json.dumps(document))
        holder = altered
        for step in place[:-1]:
            holder = holder[step]
        holder[place[-1]] = changed(holder[place[-1]])
        with pytest.raises(SignatureError):
            statements.verify(altered, [signer.public], ORIGIN)


def leaves_of(value: Any, place: tuple[Any, ...] = ()) -> Any:
    """The places of all that is no object and no list."""
    if isinstance(value, dict | list) and value:
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves_of(inner, (*place, step))
    else:
        yield place


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, str):
        return chr(ord(value[0]) ^ 1) + value[1:] if value else "x"
    return {"x": 1} if isinstance(value, dict) else [1] if isinstance(value, list) else (value or 0) + 1


def test_a_statement_is_a_table_and_a_page_too(operator: TestClient, books: Ledger) -> None:
    """As CSV it is its money; as HTML a page that fetches nothing and runs nothing."""
    post(operator, "periods/2026-11/close")
    post(operator, "log/seal")
    document = operator.get("/api/v1/statements/2026-11/bank").json()
    table = operator.get("/api/v1/statements/2026-11/bank?format=csv")
    page = operator.get("/api/v1/statements/2026-11/bank?format=html")

    assert "text/csv; charset=utf-8" == table.headers["content-type"]
    assert f"payout,{document['money']['payout']}," in table.text
    assert "text/html; charset=utf-8" == page.headers["content-type"]
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'; ")
    assert "A bank" in page.text
    assert "<script" not in page.text
    assert "invalid_value" == error_of(operator.get("/api/v1/statements/2026-11/bank?format=pdf"), 400)["code"]


def test_a_fetched_statement_is_checked_on_the_command_line(
    operator: TestClient,
    member: TestClient,
    books: Ledger,
    signer: SigningKey,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a member saves is good with the public keys that the service names, and not once a digit is changed."""
    post(operator, "periods/2026-11/close")
    post(operator, "log/seal")
    (tmp_path / "keys").write_text("\n".join(key["public"] for key in read(member, "log/keys")["data"]))
    content = member.get("/api/v1/statements/2026-11/bank").content
    file = tmp_path / "statement.json"
    file.write_bytes(content)
    good = run(capsys, "statement", "verify", file, "--public-key", tmp_path / "keys")
    file.write_bytes(content.replace(b'"payout":"', b'"payout":"1'))
    bad = run(capsys, "statement", "verify", file, "--public-key", tmp_path / "keys")

    assert (0, 5) == (good[0], good[1].count("✓"))
    assert (1, "") == bad[:2]


def test_without_a_policy_there_is_no_close(operator: TestClient, tmp_path: Path) -> None:
    """Where the service's own policy is gone, one has to be sent; nothing is settled by a guess."""
    (tmp_path / "policy.yaml").unlink()
    refusal = error_of(operator.post("/api/v1/periods/2026-11/close", json={}), 503)

    assert "policy_unavailable" == refusal["code"]
    assert "policy.yaml" in refusal["message"]
    assert "final" == post(operator, "periods/2026-11/close", policy=POLICY)["state"]


def test_without_a_signing_key_there_are_no_statements(operator: TestClient, tmp_path: Path) -> None:
    """A machine that does not have the key says so, and makes no other one."""
    post(operator, "periods/2026-11/close")
    post(operator, "log/seal")
    (tmp_path / "signing.key").unlink()

    for answer in (operator.get("/api/v1/statements/2026-11/bank"), operator.post("/api/v1/log/seal")):
        assert "signing_key_unavailable" == error_of(answer, 503)["code"]
    assert not (tmp_path / "signing.key").exists()
