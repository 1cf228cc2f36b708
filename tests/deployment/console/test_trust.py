"""Trust in the console: what is kept of the log is compared with it, entries are proved, and the books audited."""

import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployment.console.figures.audits import Audits
from rewards.ledger.ledger import Ledger
from rewards.log import proofs
from rewards.log.sealer import seal
from rewards.signing.keys import SigningKey
from rewards.signing.notes import Checkpoint, sign_checkpoint
from rewards.store import events
from tests.deployment.api.conftest import make_receipt
from tests.deployment.api.world import ORIGIN, World
from tests.deployment.calibrations import book_report, report_of
from tests.deployment.conftest import OTHER
from tests.deployment.console.conftest import SignIn, token_of
from tests.deployment.console.documents import Document, micro
from tests.deployment.gateway.engines import CARD
from tests.deployment.recorded_bundles import manifest_document, publish_document
from tests.rewards.books import unguarded
from tests.waiting import until


@pytest.fixture
def key(tmp_path: Path, world: World) -> SigningKey:
    """The signing key of the world's books."""
    return SigningKey.load(tmp_path / "signing.key")


@pytest.fixture
def member(sign_in: SignIn) -> TestClient:
    """A browser in which the bank has signed in."""
    return sign_in("member")


@pytest.fixture
def operator(sign_in: SignIn) -> TestClient:
    """A browser in which an operator has signed in."""
    return sign_in("operator")


def compare(browser: TestClient, note: str) -> Document:
    """The page that says what holds of a checkpoint that somebody pasted."""
    form = {"csrf": token_of(browser), "note": note.replace("\n", "\r\n")}  # as browsers send it
    return Document.of(browser.post("/console/trust/consistency", data=form))


def compared(browser: TestClient, note: str) -> list[str]:
    """What it says, a line for each check."""
    page = compare(browser, note)
    return [item for item in page.items if item[0] in "✓✗"]


def audited(browser: TestClient) -> Document:
    """Begin an audit, wait for its end, and give the page with what it found."""
    answer = browser.post("/console/trust/verify", data={"csrf": token_of(browser)})
    assert (303, "/console/trust/verify") == (answer.status_code, answer.headers["location"])

    def ended() -> Document | None:
        page = Document.of(browser.get("/console/trust/verify"))
        return page if "Under way" not in page.words else None

    return until(ended)


def test_the_checkpoint_is_the_apis(member: TestClient, app: FastAPI, world: World, key: SigningKey) -> None:
    """Origin, size, root, key and the note to keep, as the API tells the same key, with what is not sealed yet."""
    page = Document.of(member.get("/console/trust"))
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['member']}"}) as api:
        expected = api.get("/api/v1/log/checkpoint").json()
    note = member.get("/console/trust").text.partition('<pre class="copy">')[2].partition("</pre>")[0]

    assert expected["note"] == note
    for field in ("origin", "root", "key_id"):
        assert expected[field] in page.words
    assert f"{expected['size']} Root" in page.words
    assert key.public.encode() in page.words
    assert "Not sealed yet 0 receipts and" in page.words
    world.books.ledger.append(make_receipt(1))
    assert "Not sealed yet 1 receipt and" in Document.of(member.get("/console/trust")).words


def test_a_checkpoint_that_was_kept_is_compared(member: TestClient, world: World, key: SigningKey) -> None:
    """That the log extends it, and by how much; the proof is there to check elsewhere."""
    with world.books.ledger.database.read() as connection:
        held = proofs.inclusion(connection, "receipt", 1)["checkpoint"]
    same = compared(member, held)
    world.books.ledger.append_many([make_receipt(number) for number in (1, 2)])
    seal(world.books.ledger, key, ORIGIN)
    grown = compared(member, held)
    (link,) = (each for each in compare(member, held).links if "/consistency.json" in each)
    document = json.loads(member.get(link).content)

    assert ["✓", "✓", "✓"] == [line[0] for line in same] == [line[0] for line in grown]
    assert "nothing was added since" in same[-1]
    assert "leaves were added since" in grown[-1]
    assert document["second"] == proofs.verify_consistency(document, held, [key.public], ORIGIN).size


def test_a_checkpoint_that_does_not_fit_is_told_apart(member: TestClient, world: World, key: SigningKey) -> None:
    """Altered, of another signer, of another log, longer than the log, of another history, or none at all."""
    with world.books.ledger.database.read() as connection:
        held = proofs.inclusion(connection, "receipt", 1)["checkpoint"]
    checkpoint = Checkpoint.parse(held.partition("\n— ")[0])
    size, root = checkpoint.size, checkpoint.root
    other = SigningKey.generate(ORIGIN)

    def last(note: str) -> str:
        return compared(member, note)[-1]

    assert "was altered" in last(held.replace(f"\n{size}\n", f"\n{size - 1}\n"))
    assert "No known key signed this note" in last(sign_checkpoint(checkpoint, other))
    assert "It is of log 'elsewhere'" in last(sign_checkpoint(Checkpoint("elsewhere", size, root), key))
    assert "some of what it covered is gone" in last(sign_checkpoint(Checkpoint(ORIGIN, size + 1, root), key))
    assert "its history was altered" in last(sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), key))
    assert "Any log extends one that has no leaf" in last(sign_checkpoint(Checkpoint(ORIGIN, 0, root), key))
    assert {"✗"} == {compared(member, text)[-1][0] for text in ("", "hello", "a\n\n— b c\n", "\x00", "—")}


def test_a_member_proves_its_own_entry(member: TestClient, operator: TestClient, key: SigningKey) -> None:
    """What is shown and taken away is the entry in the signed books; the operator gets the same for that client."""
    page = Document.of(member.get("/console/trust/proof?response=shared-one"))
    (link,) = (each for each in page.links if "/proof.json" in each)
    file = member.get(link)
    proved = proofs.verify_receipt_proof(json.loads(file.content), [key.public], ORIGIN)

    assert ("bank", "shared-one", 1_234_567) == (proved.client, proved.response_id, proved.amount)
    assert "bank has 1.234567 of credit in shared-one" in page.words
    assert file.content == operator.get("/console/trust/proof.json?response=shared-one&client=bank").content
    unsaid = Document.of(operator.get("/console/trust/proof?response=shared-one"), 400)
    assert "Client is missing: whose entry is to be proved?" in unsaid.words
    assert "has no entry" in Document.of(member.get("/console/trust/proof?response=clinic-alone"), 404).words
    assert 404 == member.get("/console/trust/proof.json?response=clinic-alone").status_code


def test_books_in_order_are_found_in_order(operator: TestClient, world: World) -> None:
    """With who asked, when, how many rows there were, and each account's credit added up anew."""
    page = audited(operator)
    rows = {row[0]: int(row[1].replace(",", "")) for row in page.table("Rows").rows[1:]}
    credit = page.table("Credit")

    assert "✓ The books are in order" in page.words
    assert "asked for by you" in page.words
    with world.books.ledger.database.read() as connection:
        calls = [event for event in events.find(connection, kinds=["call"]) if event.subject.endswith("/trust/verify")]
    assert 7 == rows["receipts"]
    balances = world.books.ledger.balances()
    assert balances == {row[0]: micro(row[1]) for row in credit.rows[1:-1] if micro(row[1])}
    assert sum(balances.values()) == micro(credit.rows[-1][1])
    assert ("POST", world.keys["operator"].split("_")[1]) == (calls[0].document["method"], calls[0].actor)
    assert "✓ the books are in order" in Document.of(operator.get("/console/trust")).words


def test_a_planted_difference_is_named(operator: TestClient, url: str, world: World, sign_in: SignIn) -> None:
    """Somebody who writes past the books is found: the table, the row, the field, and what it must be."""
    with unguarded(url) as connection:
        connection.exec_driver_sql(
            "UPDATE entries SET amount = amount + 5 WHERE receipt_sequence = 2 AND account = 'clinic'"
        )
    page = audited(operator)

    assert "✗ The books are not in order. The first row that differs:" in page.words
    assert "Table entries Row (2, 'clinic') Field amount Found 2999988 Expected 2999983" in page.words
    for role in ("auditor", "admin"):
        assert "2999988" in Document.of(sign_in(role).get("/console/trust/verify")).words
        assert "✗ the books are not in order" in Document.of(sign_in(role).get("/console/trust")).words


def test_one_audit_is_made_at_a_time(ledger: Ledger) -> None:
    """Who asks while one is under way is told of that one; the next can begin when it has ended."""
    ledger.append_many([make_receipt(number) for number in range(1, 5)])
    audits = Audits(ledger.database.url)
    begun = [audits.begin(actor) for actor in ("first", "second", "third")]
    until(lambda: audits.current is None)

    assert [True, False, False] == begun
    assert audits.last is not None
    assert ("first", "") == (audits.last.actor, audits.last.failure)
    assert audits.begin("fourth")
    until(lambda: audits.current is None)


def test_an_audit_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    """Where the ledger is away there is no verdict, but a reason; and the next one can begin."""
    audits = Audits(f"sqlite:///{tmp_path}/none.db")
    assert audits.begin("me")
    until(lambda: audits.current is None)

    assert audits.last is not None
    assert audits.last.report is None
    assert "no ledger at" in audits.last.failure
    assert audits.begin("me")


def test_only_who_sees_everything_has_the_books_audited(member: TestClient) -> None:
    """A member's page does not offer it, and a member who asks anyway is refused."""
    page = Document.of(member.get("/console/trust"))

    assert "Verify now" not in page.words
    assert [] == [form for form in page.forms if form.action.endswith("/verify")]
    assert 403 == member.post("/console/trust/verify", data={"csrf": token_of(member)}).status_code
    assert 403 == member.get("/console/trust/verify").status_code


class TestCalibrations:
    """How right the shares are: in words and figures, to whoever may see the page."""

    @pytest.mark.parametrize("role", ["member", "operator", "auditor", "admin"])
    def test_the_latest_calibration_of_a_model_is_told(self, sign_in: SignIn, world: World, role: str) -> None:
        """How much would go to others, in which interval, by what truth and of how many responses; r; the prompts."""
        book_report(world.books.ledger, report_of(CARD.name, CARD.global_sha256, responses=99))
        sequence = book_report(world.books.ledger, report_of(CARD.name, CARD.global_sha256))
        words = Document.of(sign_in(role).get("/console/trust")).words

        for told in (
            "On average 2.8 % (95 % interval: 2.1 % to 3.6 %) of a response's credit to clients would go to others by",
            f"{CARD.name}, model {CARD.global_sha256[:12]}",
            "exact Shapley values, over all 16 coalitions of the clients",
            "56 of 60; 4 gained no more than 1 nat over the base model, and 95.0 % of their credit is the commons’",
            "Of all responses together 0.9 %: this is what is paid",
            "r = 0.997, over 224 shares",
            "ef" * 32,
            f"event {sequence}",
        ):
            assert told in words
        assert "of 99" not in words
        assert f"Nothing was measured yet of the model that {OTHER} serves now" in words

    def test_without_one_the_page_says_how_it_is_made(self, member: TestClient) -> None:
        """The command, and of which consortium nothing was measured."""
        words = Document.of(member.get("/console/trust")).words

        assert f"Nothing was measured yet of the models that {CARD.name} and {OTHER} serve now" in words
        assert "protoken evaluate --bundle BUNDLE --prompts prompts.jsonl --ledger LEDGER" in words

    def test_a_new_round_is_not_calibrated_by_the_one_before(
        self, member: TestClient, world: World, tmp_path: Path
    ) -> None:
        """What was measured of an older model stays, and the page says that nothing was of the one that is served."""
        book_report(world.books.ledger, report_of(CARD.name, CARD.global_sha256))
        publish_document(world.books.ledger, tmp_path / "next", manifest_document(CARD.name, ["clinic", "bank"], 2))
        words = Document.of(member.get("/console/trust")).words

        assert "On average 2.8 %" in words
        assert f"Nothing was measured yet of the models that {CARD.name} and {OTHER} serve now" in words

    def test_sampled_values_tell_their_own_error(self, member: TestClient, world: World) -> None:
        """Of many clients: from how many orders, and how much of the difference is theirs."""
        example = report_of(CARD.name, CARD.global_sha256)
        error = example.figures.truth_error.model_copy(update={"value": 0.004, "n": 56})
        sampled = {
            "truth": "permutations",
            "permutations": 100,
            "clients": 55,
            "figures": example.figures.model_copy(update={"truth_error": error}),
        }
        book_report(world.books.ledger, example.model_copy(update=sampled))
        words = Document.of(member.get("/console/trust")).words

        assert "sampled from 100 orders in which 55 clients may join; sampling them makes some 0.4 % of" in words
        assert "would go to others by sampled Shapley values" in words

    def test_a_member_is_told_of_its_own_consortia_alone(self, member: TestClient, world: World) -> None:
        """One that it is not in is not there, calibrated or not."""
        world.books.ledger.register("school", {"teacher": "A teacher"})
        book_report(world.books.ledger, report_of("school", "12" * 32))

        assert "school" not in Document.of(member.get("/console/trust")).words
