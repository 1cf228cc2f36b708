"""Periods in the console: every figure is the API's, and nothing is moved that nobody has seen and confirmed."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from deployment.books import statement_page
from deployment.books.books import Books
from deployment.health.signing_key import signing_key
from rewards import periods
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.periods import holds
from rewards.settlement.policy import Policy
from rewards.signing.keys import SigningKey
from rewards.store import events
from rewards.store.database import now_us
from tests.deployment.api.conftest import make_receipt
from tests.deployment.api.world import ORIGIN, ROLES, World
from tests.deployment.console.conftest import SignIn, token_of
from tests.deployment.console.documents import Document, Table, micro, minor

POLICY = {
    "currency": "EUR",
    "pool": 10_000_007,
    "fee_percent": "2.5",
    "holdback_percent": 10,
    "minimum_payout": 50_000,
    "dispute_days": 0,
}
DAY_US = 24 * 3_600_000_000


@pytest.fixture
def world(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> World:
    """Eleven receipts of an open period, a policy that has every kind of line, and a key of each role."""
    ledger.append_many([make_receipt(number) for number in range(1, 12)])
    signing_key(tmp_path / "signing.key", ledger, ORIGIN)
    set_policy(tmp_path, **POLICY)
    made = {
        role: keys.create(role, f"label of {role}", actor="test", client="bank" if role == "member" else None)
        for role in ROLES
    }
    return World(Books(ledger, keys, tmp_path / "signing.key", tmp_path / "policy.yaml"), made, ())


@pytest.fixture
def operator(sign_in: SignIn) -> TestClient:
    """A browser in which an operator has signed in."""
    return sign_in("operator")


@pytest.fixture
def api(app: FastAPI, world: World) -> Iterator[TestClient]:
    """A caller of the operator API with the operator's key."""
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['operator']}"}) as caller:
        yield caller


def set_policy(folder: Path, **policy: Any) -> None:
    """Make this the policy of the service."""
    (folder / "policy.yaml").write_text(json.dumps(policy), encoding="utf-8")


def previewed(browser: TestClient, name: str) -> Document:
    """The preview of a period."""
    return Document.of(browser.get("/console/periods/preview", params={"name": name}))


def send(browser: TestClient, page: Document, action: str, **typed: str) -> Response:
    """Fill in the form of a page that sends to `action`, and send it."""
    form = page.form(action)
    assert "post" == form.method
    return browser.post(form.action, data=form.fields | typed)


def close(browser: TestClient, name: str) -> Response:
    """Preview a period and close it as it stands there."""
    return send(browser, previewed(browser, name), "/periods/close", typed=name)


def landed(browser: TestClient, answer: Response) -> Document:
    """The page that an answer leads to."""
    assert 303 == answer.status_code, answer.text
    return Document.of(browser.get(answer.headers["location"]))


def require_same(table: Table, settlement: dict[str, Any]) -> None:
    """Every figure of a settlement's lines stands in the table, and the sums are theirs."""
    column_of = {name.lstrip("+−= "): name for name in table.head}
    money = {
        "gross": "Gross",
        "carried_in": "Carried in",
        "released_holdback": "Holdback released",
        "released_hold": "Hold released",
        "clawback": "Taken back",
        "holdback": "Holdback",
        "held": "On hold",
        "carried_out": "Carried on",
        "payout": "Payout",
    }
    for line in settlement["lines"]:
        row = next(row for row in table.rows[1:] if line["account"] in row[0].split())
        cells = dict(zip(table.head, row, strict=True))
        assert int(line["credit"]) == micro(cells["Credit"])
        assert statement_page.percent(line["share"]) == cells["Part"]
        for name, label in money.items():
            shown = minor(cells[column_of[label]]) if label in column_of else 0
            assert int(line[name]) == shown, (line["account"], name)
    total = table.row("Sum")
    assert int(settlement["pool"]) == minor(total["Gross"])
    assert sum(int(line["payout"]) for line in settlement["lines"]) == minor(total[column_of["Payout"]])
    assert sum(int(line["credit"]) for line in settlement["lines"]) == micro(total["Credit"])


def test_a_preview_shows_what_the_api_says(operator: TestClient, api: TestClient, world: World) -> None:
    """Credit, share and every line of money of each account; the sum is the pool, and nothing was written."""
    page = previewed(operator, "2026-11")
    expected = api.post("/api/v1/periods/2026-11/preview", json={}).json()["settlement"]

    require_same(page.table("What 2026-11 would"), expected)
    assert int(expected["fee"]) == minor(page.table("What 2026-11 would").row("Fee")["Gross"])
    assert expected["sha256"] == page.form("/periods/close").fields["expected"]
    assert "There is no earlier settlement in EUR" in page.words
    assert () == periods.all(world.books.ledger)


def test_a_preview_shows_how_each_payout_differs_from_the_period_before(
    operator: TestClient, api: TestClient, world: World
) -> None:
    """More and less stand with a sign and a symbol, and are the API's figures."""
    close(operator, "2026-10")
    world.books.ledger.append_many([make_receipt(number) for number in (20, 21, 23, 26, 29)])
    table = previewed(operator, "2026-11").table("What 2026-11 would")
    preview = api.post("/api/v1/periods/2026-11/preview", json={}).json()
    (column,) = (name for name in table.head if name.startswith("Payout against"))

    assert "Payout against final of 2026-10" == column
    assert any(map(int, preview["difference"].values()))
    for account, text in preview["difference"].items():
        difference = int(text)
        row = next(row for row in table.rows[1:] if account in row[0].split())
        shown = dict(zip(table.head, row, strict=True))[column]
        assert difference == minor(shown)
        assert {1: "▲ +", -1: "▼ −", 0: "= "}[(difference > 0) - (difference < 0)] == shown.rstrip("0123456789.,")
    assert sum(map(int, preview["difference"].values())) == minor(table.row("Sum")[column])


@pytest.mark.parametrize(("name", "goes_on"), [("9999-11", True), ("2020-02", False), ("autumn", False)])
def test_a_month_that_goes_on_is_told(operator: TestClient, name: str, goes_on: bool) -> None:
    """A name is a label: what is generated after the close counts in the next period."""
    words = "The month goes on until 9999-12-01 00:00:00 UTC"

    assert goes_on == (words in previewed(operator, name).words)


def test_what_was_previewed_is_closed_by_the_key_that_signed_in(
    operator: TestClient, api: TestClient, world: World
) -> None:
    """The period is closed as it stood there, and the books name who did it."""
    page = landed(operator, close(operator, "2026-11"))
    stored = api.get("/api/v1/periods/2026-11").json()

    assert "Period 2026-11 is closed: it is final now." in page.words
    require_same(page.table("Settlement of 2026-11"), stored["settlement"])
    with world.books.ledger.database.read() as connection:
        actors = {event.actor for event in events.find(connection, kinds=["period.draft", "period.final"])}
    assert {world.keys["operator"].split("_")[1]} == actors


def test_what_is_booked_after_the_preview_is_left_to_the_next_period(operator: TestClient, world: World) -> None:
    """A busy ledger can be closed: the preview's moment is the period's end."""
    page = previewed(operator, "2026-11")
    world.books.ledger.append(make_receipt(30))
    send(operator, page, "/periods/close", typed="2026-11")
    (closed,) = periods.all(world.books.ledger)

    assert (0, 11) == closed.window
    assert page.form("/periods/close").fields["expected"] == closed.settlement.sha256


def test_a_preview_that_is_stale_is_not_closed(operator: TestClient, world: World) -> None:
    """A hold that is placed meanwhile changes the payouts: nothing is closed, what it comes to now is shown."""
    page = previewed(operator, "2026-11")
    holds.place(world.books.ledger, "client", "bank", "audited", "test")
    again = Document.of(send(operator, page, "/periods/close", typed="2026-11"), 409)

    assert "Nothing was closed: period '2026-11' comes to another settlement by now" in again.words
    assert () == periods.all(world.books.ledger)
    assert page.form("/periods/close").fields["expected"] != again.form("/periods/close").fields["expected"]
    seen, now = (each.table("What 2026-11 would").row("A bank")["= Payout"] for each in (page, again))
    assert 0 == minor(now) != minor(seen)
    landed(operator, send(operator, again, "/periods/close", typed="2026-11"))
    assert ["2026-11"] == [period.name for period in periods.all(world.books.ledger)]


def test_a_policy_that_changed_meanwhile_is_shown_first(operator: TestClient, world: World, tmp_path: Path) -> None:
    """Nobody closes by another policy than the one that was previewed."""
    page = previewed(operator, "2026-11")
    set_policy(tmp_path, **{**POLICY, "pool": 5})
    again = Document.of(send(operator, page, "/periods/close", typed="2026-11"), 409)

    assert 5 == minor(again.table("What 2026-11 would").row("Sum")["Gross"])
    assert () == periods.all(world.books.ledger)


def test_a_double_click_closes_once(operator: TestClient, world: World) -> None:
    """Of two that are sent at once one closes; the other is told that it was closed, when and by whom."""
    page = previewed(operator, "2026-11")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: send(operator, page, "/periods/close", typed="2026-11"), range(2)))
    again = send(operator, page, "/periods/close", typed="2026-11")

    assert [303, 303] == [answer.status_code for answer in answers]
    assert "had been closed already, by you at" in landed(operator, again).words
    assert 1 == len(periods.all(world.books.ledger))
    with world.books.ledger.database.read() as connection:
        assert 1 == len(events.find(connection, kinds=["period.draft"]))


def test_the_second_of_two_operators_is_told_who_closed(operator: TestClient, world: World, sign_in: SignIn) -> None:
    """Both looked at the same preview; the later one learns whose close it is."""
    other = sign_in(world.books.keys.create("operator", "the other", actor="test"))
    theirs = previewed(other, "2026-11")
    close(operator, "2026-11")
    page = landed(other, send(other, theirs, "/periods/close", typed="2026-11"))

    assert f"had been closed already, by {world.keys['operator'].split('_')[1]} at" in page.words


@pytest.mark.parametrize("typed", ["", "2026-12", "2026-11x"])
def test_the_name_must_be_typed(operator: TestClient, world: World, typed: str) -> None:
    """Without the period's name nothing is closed, and the preview is there to be tried again."""
    page = Document.of(send(operator, previewed(operator, "2026-11"), "/periods/close", typed=typed), 400)

    assert "Nothing was closed: to close it, type the period's name, 2026-11." in page.words
    assert page.form("/periods/close").fields["expected"]
    assert () == periods.all(world.books.ledger)


def test_a_draft_goes_its_whole_way(
    operator: TestClient, api: TestClient, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed, disputed with a reason, finalised after its days as it was previewed, paid with a reference."""
    set_policy(tmp_path, **{**POLICY, "dispute_days": 3})
    draft = landed(operator, close(operator, "2026-11"))
    early = previewed(operator, "2026-11")
    assert [] == [form for form in early.forms if form.action.endswith("/finalise")]
    assert "It may be disputed until" in early.words
    disputed = landed(operator, send(operator, draft, "/dispute", reason="the bank objects", confirmed="yes"))
    assert "⚠ disputed" in disputed.words
    later = now_us() + 3 * DAY_US
    for module in ("rewards.periods.transitions", "deployment.console.pages.periods"):
        monkeypatch.setattr(f"{module}.now_us", lambda *_: later)
    preview = previewed(operator, "2026-11")
    final = landed(operator, send(operator, preview, "/finalise", typed="2026-11"))
    paid = landed(operator, send(operator, final, "/pay", reference="SEPA 4711", confirmed="yes"))
    stored = api.get("/api/v1/periods/2026-11").json()

    assert "Payout against draft of 2026-11" in preview.table("What 2026-11 would").head
    history = paid.table("Moves of the period").rows[1:]
    assert [move["state"] for move in stored["moves"]] == [row[0].split()[-1] for row in history]
    assert ["—", "the bank objects", "—", "SEPA 4711"] == [row[3] for row in history]
    assert {"you"} == {row[2] for row in history}
    assert {world.keys["operator"].split("_")[1]} == {move["actor"] for move in stored["moves"]}
    assert [] == [form for form in paid.forms if "/periods/" in form.action]


def test_a_draft_that_a_hold_changed_is_not_finalised_unseen(
    operator: TestClient, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody else held after the preview is shown, with what it takes from the draft, before it is final."""
    set_policy(tmp_path, **{**POLICY, "dispute_days": 3})
    close(operator, "2026-11")
    later = now_us() + 3 * DAY_US
    for module in ("rewards.periods.transitions", "deployment.console.pages.periods"):
        monkeypatch.setattr(f"{module}.now_us", lambda *_: later)
    page = previewed(operator, "2026-11")
    holds.place(world.books.ledger, "client", "bank", "audited", "test")
    again = Document.of(send(operator, page, "/finalise", typed="2026-11"), 409)

    assert "Nothing was finalised: period '2026-11' comes to another settlement" in again.words
    assert "disputed" == periods.all(world.books.ledger)[0].state
    assert again.table("What 2026-11 would").row("A bank")["Payout against draft of 2026-11"].startswith("▼ −")


@pytest.mark.parametrize(
    ("move", "typed", "status", "told"),
    [
        ("dispute", {"reason": "x"}, 400, "tick the box"),
        ("dispute", {"reason": " ", "confirmed": "yes"}, 400, "must be printable text that says why"),
        ("dispute", {"reason": "a\nb", "confirmed": "yes"}, 400, "must be printable text that says why"),
        ("dispute", {"reason": "x", "confirmed": "yes"}, 409, "is final and cannot be disputed"),
        ("pay", {"reference": "", "confirmed": "yes"}, 400, "reference"),
        ("pay", {"reference": "x" * 1001, "confirmed": "yes"}, 400, "reference"),
        ("pay", {"reference": "4711"}, 400, "tick the box"),
        ("finalise", {"typed": "2026-11", "expected": "ab" * 32}, 409, "is final and cannot be finalised"),
    ],
)
def test_a_move_that_cannot_be_is_told_on_the_page(
    operator: TestClient, world: World, move: str, typed: dict[str, str], status: int, told: str
) -> None:
    """Without confirmation, without a reason, or in another state nothing is done, and the page says why."""
    close(operator, "2026-11")
    form = typed | {"csrf": token_of(operator)}
    page = Document.of(operator.post(f"/console/periods/2026-11/{move}", data=form), status)

    assert "Nothing was" in page.words
    assert told in page.words
    assert "final" == periods.all(world.books.ledger)[0].state


def test_there_is_a_page_for_every_reason_to_preview_nothing(
    operator: TestClient, world: World, tmp_path: Path
) -> None:
    """An empty period, a draft before it, a name that cannot be, a wrong end, and a policy that cannot be read."""

    def reason(**query: str) -> str:
        page = Document.of(operator.get("/console/periods/preview", params=query))
        assert [] == [form for form in page.forms if form.method == "post" and "/periods/" in form.action]
        return page.words

    assert "Give the period a name" in reason()
    assert "must be 1 to 64 letters" in reason(name="a b")
    assert "is no moment" in reason(name="2026-11", until="yesterday")
    assert "it can be closed from" in reason(name="2026-11", until="2199-01-01T00:00")
    assert "is no moment before the year 2255" in reason(name="2026-11", until="2999-01-01T00:00")
    close(operator, "2026-09")
    assert "with pool: 0 it pays what falls due" in reason(name="2026-10")
    set_policy(tmp_path, **{**POLICY, "pool": 0})
    close(operator, "2026-10")  # pays the holdback that falls due
    assert "is empty: nothing was booked since receipt 11" in reason(name="2026-11")
    assert "is closed already (final, receipts 1 to 11)" in reason(name="2026-09")
    world.books.ledger.append(make_receipt(20))
    set_policy(tmp_path, **{**POLICY, "dispute_days": 3})
    close(operator, "2026-11")
    world.books.ledger.append(make_receipt(21))
    assert "cannot be closed while '2026-11' before it is draft: finalise that first" in reason(name="2026-12")
    set_policy(tmp_path, currency="EUR")
    assert "the service's own policy" in reason(name="2026-12")


def test_a_draft_under_a_policy_that_is_none_today_is_still_shown_and_previewed(
    operator: TestClient, world: World
) -> None:
    """It was closed before currencies were checked, with digits that ISO 4217 does not give the euro."""
    policy = Policy.from_mapping({**POLICY, "minor_digits": 0, "dispute_days": 3}, stored=True)
    periods.close(world.books.ledger, "2026-10", policy, "test")

    assert "10,000,007 EUR" in Document.of(operator.get("/console/periods/2026-10")).words
    assert "10,000,007 EUR" in previewed(operator, "2026-10").words


def test_a_policy_with_grace_waits_for_an_end(operator: TestClient, world: World, tmp_path: Path) -> None:
    """Where late bookings are waited for, the preview of now says that it moves, and one with an end stands still."""
    set_policy(tmp_path, **{**POLICY, "grace_hours": 2})
    moving = previewed(operator, "2026-11")
    query = {"name": "2026-11", "until": "2026-01-01T00:00:00"}
    still = Document.of(operator.get("/console/periods/preview", params=query))

    assert "The policy has 2 hours of grace" in moving.words
    assert "until_us" not in moving.form("/periods/close").fields
    assert "is empty: nothing was booked" in still.words
    world.books.ledger.append(make_receipt(30))
    Document.of(send(operator, moving, "/periods/close", typed="2026-11"), 409)
    assert () == periods.all(world.books.ledger)


def test_who_may_only_read_has_no_buttons(operator: TestClient, sign_in: SignIn) -> None:
    """Auditors and admins see the same figures; neither a page offers them a move, nor is one taken from them."""
    close(operator, "2026-11")
    for role in ("auditor", "admin"):
        reader = sign_in(role)
        for path in ("/periods", "/periods/2026-11", "/periods/preview?name=2026-12", "/holds"):
            page = Document.of(reader.get(f"/console{path}"))
            assert [] == [form.action for form in page.forms if form.method == "post" and "sign-out" not in form.action]
        theirs, ours = (Document.of(one.get("/console/periods/2026-11")) for one in (reader, operator))
        assert ours.table("Settlement").rows == theirs.table("Settlement").rows
        for path in ("periods/close", "periods/2026-11/pay", "periods/2026-11/dispute", "holds"):
            assert 403 == reader.post(f"/console/{path}", data={"csrf": token_of(reader)}).status_code


def test_periods_are_listed_with_what_can_be_done_next(
    operator: TestClient, api: TestClient, world: World, tmp_path: Path
) -> None:
    """Newest first, each with its state, who closed it, its tokens and pool, and the moves that are open."""
    assert "No period is closed yet." in Document.of(operator.get("/console/periods")).words
    close(operator, "2026-10")
    world.books.ledger.append_many([make_receipt(number) for number in (20, 21)])
    set_policy(tmp_path, **{**POLICY, "dispute_days": 3})
    close(operator, "2026-11")
    table = Document.of(operator.get("/console/periods")).table("Closed periods")
    stored = {each["name"]: each for each in api.get("/api/v1/periods").json()["data"]}

    assert ["2026-11", "2026-10"] == [row[0] for row in table.rows[1:]]
    for name, period in stored.items():
        row = table.row(name)
        assert period["state"] == row["State"].split()[-1]
        assert int(period["pool"]) == minor(row["Pool"])
        assert int(period["settlement"]["tokens"]) == int(row["Tokens"].replace(",", ""))
        assert "you" == row["by"]
    assert "note as paid" == table.row("2026-10")["Next"]
    assert table.row("2026-11")["Next"].startswith("dispute, finalise from ")


def test_a_statement_that_is_not_sealed_yet_is_not_a_dead_end(
    operator: TestClient, world: World, tmp_path: Path
) -> None:
    """Instead of a file that could not be checked there is the list, and why; once it is sealed there is the file."""
    close(operator, "2026-11")
    address = "/console/statements/2026-11/bank.json"
    early = Document.of(operator.get(address), 503)
    seal(world.books.ledger, SigningKey.load(tmp_path / "signing.key"), ORIGIN)

    assert "cannot be given out now: the statement of 'bank' cannot be issued before the log is sealed" in early.words
    assert address in early.links
    assert 200 == operator.get(address).status_code


def test_a_period_that_is_not_there_is_not_found(operator: TestClient) -> None:
    """As a page, with the way back."""
    form = {"csrf": token_of(operator), "reference": "x", "confirmed": "yes"}
    for answer in (
        operator.get("/console/periods/none"),
        operator.post("/console/periods/none/pay", data=form),
    ):
        assert "No period 'none' is closed." in Document.of(answer, 404).words


def test_a_form_of_another_session_is_refused(operator: TestClient, world: World, sign_in: SignIn) -> None:
    """The token is of the session: what another page made an operator send changes nothing."""
    page = previewed(sign_in("operator"), "2026-11")

    assert 403 == send(operator, page, "/periods/close", typed="2026-11").status_code
    assert () == periods.all(world.books.ledger)


def test_what_stands_in_another_currency_is_on_the_page(operator: TestClient, world: World, tmp_path: Path) -> None:
    """After a period in another currency its page and its preview list what waits in the first one."""
    close(operator, "2026-10")
    world.books.ledger.append(make_receipt(20))
    set_policy(tmp_path, currency="JPY", pool=700)
    preview = previewed(operator, "2026-11")
    page = landed(operator, close(operator, "2026-11"))

    for seen in (preview, page):
        assert "Standing in EUR until a period is settled in it; nothing is converted" in seen.words
