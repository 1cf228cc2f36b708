"""Statements: signed, provably in the log, checked offline; as a table and as a page."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from deployment.books import statement_page
from rewards import money, periods, statements
from rewards.errors import SignatureError, StatementError
from rewards.files.plain_text import one_line
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.periods import holds
from rewards.settlement.policy import Policy
from rewards.signing.documents import sign_document
from rewards.signing.keys import SigningKey
from rewards.signing.notes import Checkpoint, sign_checkpoint
from tests.rewards.books import KEY, ORIGIN, OTHER_KEY
from tests.rewards.receipts import make_receipt

POLICY = Policy(currency="EUR", pool=123_456_789, holdback_percent=10, fee_percent="2.5")
HOSTILE = "A <script>alert(1)</script> & \"bank\" 'é' \u202etxt"


def issued(ledger: Ledger, client: str = "bank", period: str = "2026-11", key: SigningKey = KEY) -> dict:
    """A client's statement."""
    with ledger.database.read(member=client) as connection:
        return statements.issue(connection, period, client, key)


def closed(ledger: Ledger, policy: Policy = POLICY) -> None:
    """A final period over two receipts, sealed."""
    ledger.append(make_receipt("r1"))
    ledger.append(make_receipt("r2", tokens=9))
    periods.close(ledger, "2026-11", policy, "me")
    seal(ledger, KEY, ORIGIN)


def test_a_statement_says_what_was_settled(ledger):
    """Its money is the line of the settlement, to the last unit, for each client, paid or not."""
    closed(ledger)
    lines = {line.account: line for line in periods.get(ledger, "2026-11").settlement.lines}

    for client in ("bank", "clinic", "rider"):
        document = issued(ledger, client)
        checked = statements.verify(document, [KEY.public], ORIGIN)
        assert {name: str(getattr(lines[client], name)) for name in document["money"]} == document["money"]
        assert (client, "2026-11", 5) == (checked.client, checked.period, len(checked.checks))
    assert "0" == issued(ledger, "rider")["money"]["payout"]


def test_a_statement_waits_for_its_period_and_for_the_seal(ledger):
    """Before the period is final there is none; before the log is sealed there is no proof to give with it."""
    ledger.append(make_receipt("r1"))
    periods.close(ledger, "2026-11", POLICY.model_copy(update={"dispute_days": 1}), "me")
    with pytest.raises(StatementError, match="becomes final"):
        issued(ledger)
    with ledger.database.read() as connection:
        assert () == statements.clients(connection, "2026-11")


def test_an_unsealed_statement_is_not_issued(ledger):
    """Its leaf must be under a signed checkpoint."""
    ledger.append(make_receipt("r1"))
    periods.close(ledger, "2026-11", POLICY, "me")

    with pytest.raises(StatementError, match="before the log is sealed"):
        issued(ledger)


def test_a_statement_of_an_unknown_signer_is_refused(ledger):
    """Only keys that the checker has from elsewhere count."""
    closed(ledger)

    with pytest.raises(SignatureError):
        statements.verify(issued(ledger), [OTHER_KEY.public], ORIGIN)
    with pytest.raises(SignatureError, match="is of log"):
        statements.verify(issued(ledger), [KEY.public], "another/ledger")


def test_a_statement_that_the_log_does_not_hold_is_refused(ledger):
    """Whoever has the signing key but not the log cannot make one up: the leaf must be there."""
    closed(ledger)
    document = issued(ledger)
    document["money"]["payout"] = str(int(document["money"]["payout"]) + 1)
    del document["signature"]

    with pytest.raises(SignatureError, match="not leaf"):
        statements.verify(sign_document(document, KEY), [KEY.public], ORIGIN)


def test_a_statement_stays_checkable_after_rotation(ledger):
    """An older key's statement, under an older checkpoint, holds against all the public keys there ever were."""
    closed(ledger)
    first = issued(ledger)
    ledger.append(make_receipt("r3"))
    seal(ledger, OTHER_KEY, ORIGIN)
    second = issued(ledger, key=OTHER_KEY)

    for document in (first, second):
        assert statements.verify(document, [KEY.public, OTHER_KEY.public], ORIGIN).client == "bank"
    assert first["event"] == second["event"]


def signed_by(document: dict, key: SigningKey) -> dict:
    """The statement under another signature."""
    return sign_document({name: value for name, value in document.items() if name != "signature"}, key)


def under(document: dict, key: SigningKey, origin: str) -> dict:
    """The statement with the log's root signed for a log, by a key, and signed by that key."""
    checkpoint = replace(Checkpoint.parse(document["log"]["checkpoint"].rpartition("\n\n")[0] + "\n"), origin=origin)
    return signed_by({**document, "log": {**document["log"], "checkpoint": sign_checkpoint(checkpoint, key)}}, key)


@pytest.mark.parametrize("origin", [None, ORIGIN])
def test_another_ledger_s_key_signs_nothing_for_this_one(ledger, origin):
    """Who knows the keys of two ledgers takes from each only what it says of itself: statement and checkpoint alike."""
    closed(ledger)
    document, foreign = issued(ledger), SigningKey("another/ledger", bytes(range(1, 33)))
    keys = [KEY.public, foreign.public]

    assert "bank" == statements.verify(document, keys, origin).client
    with pytest.raises(SignatureError, match="signs for the ledger 'another/ledger', and not for"):
        statements.verify(signed_by(document, foreign), keys, origin)
    forged = under(document, foreign, ORIGIN)
    for each in (forged, signed_by(forged, KEY)):
        with pytest.raises(SignatureError, match="no known key signed this note"):
            statements.verify(each, keys, origin)


def test_a_key_signs_nothing_for_a_ledger_of_another_name(ledger):
    """The same key under another log's name is refused, unless the checker knows that this key is that log's."""
    closed(ledger)
    elsewhere = under(issued(ledger), KEY, "elsewhere/ledger")
    renamed = replace(KEY.public, origin="elsewhere/ledger")

    with pytest.raises(SignatureError, match="and not for 'elsewhere/ledger', which is named here"):
        statements.verify(elsewhere, [KEY.public])
    assert "bank" == statements.verify(elsewhere, [renamed], "elsewhere/ledger").client
    with pytest.raises(SignatureError, match="is of log"):
        statements.verify(elsewhere, [renamed], ORIGIN)


NO_STATEMENTS = [
    "",
    "[]",
    "{",
    '{"a": 1, "a": 2}',
    '{"a": [{"b": 1, "b": 1}]}',
    '{"a": NaN}',
    '{"a": -Infinity}',
    '"x"',
]


@pytest.mark.parametrize("text", [*NO_STATEMENTS, b"\xff", '{"a": 1}'.encode("utf-16"), "[" * 100_000])
def test_what_is_no_statement_is_refused(text):
    """No JSON, no object, or a field given twice, which two readers could read differently."""
    with pytest.raises(SignatureError):
        statements.load(text)


def test_a_statement_in_any_layout_is_the_same(ledger):
    """What is signed is the canonical form, not the bytes of the file."""
    closed(ledger)
    document = issued(ledger)

    for layout in (json.dumps(document, indent=3), json.dumps(dict(reversed(list(document.items()))))):
        assert statements.verify(statements.load(layout), [KEY.public], ORIGIN).period == "2026-11"


def test_written_statements_are_found_by_period_and_client(ledger):
    """In their order, some at a time, narrowed by either or both; an underscore in a name stands for itself."""
    closed(ledger)
    ledger.append(make_receipt("r3"))
    periods.close(ledger, "2026_11", POLICY, "me")

    def found(**narrowed) -> list[str]:
        with ledger.database.read() as connection:
            return [event.subject for event in statements.find_statements(connection, **{"limit": 99, **narrowed})]

    assert 6 == len(found())
    assert ["2026-11/bank", "2026-11/clinic", "2026-11/rider"] == found(period="2026-11")
    assert ["2026_11/bank", "2026_11/clinic", "2026_11/rider"] == found(period="2026_11")
    assert ["2026-11/clinic", "2026_11/clinic"] == found(client="clinic")
    assert ["2026_11/clinic"] == found(client="clinic", period="2026_11")
    assert found()[:2] == found(limit=2)


def test_names_that_differ_in_case_are_different_names(ledger):
    """A client or period spelt with capitals is another one, on both databases: nobody is told what is another's."""
    ledger.register("demo", {"BANK": "Another bank", "a bank": "A third", "Ä": "A fourth", "ä": "A fifth"})
    closed(ledger)
    ledger.append(make_receipt("r4"))
    periods.close(ledger, "q", POLICY, "me")
    ledger.append(make_receipt("r5"))
    periods.close(ledger, "Q", POLICY, "me")
    with ledger.database.read() as connection:
        for client in ("bank", "BANK", "a bank", "Ä", "ä", "Bank"):
            found = [event.subject for event in statements.find_statements(connection, client=client, limit=99)]
            assert [f"{period}/{client}" for period in ("2026-11", "q", "Q") if client != "Bank"] == found
        for period in ("q", "Q"):
            found = [event.subject for event in statements.find_statements(connection, period=period, limit=99)]
            assert {f"{period}/{client}" for client in statements.clients(connection, period)} == set(found)
            assert 7 == len(found)


class _Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onerror"}, (
            "the page fetches or runs something"
        )

    def handle_data(self, data):
        self.text += data


def test_a_page_shows_all_and_runs_nothing(ledger):
    """A hostile display name is text on the page, nothing is fetched, and every amount is there."""
    ledger.register("other", {"eve": HOSTILE})
    closed(ledger)
    with ledger.database.read() as connection:
        document = statements.issue(connection, "2026-11", "eve", KEY)
    page = _Page()
    page.feed(statement_page.page(document))

    assert one_line(HOSTILE) in page.text
    assert not page.tags & {"script", "img", "link", "iframe", "object", "form", "a"}
    amount = money.write_plain(int(document["distributable"]), 2)
    assert f"{amount}EUR" in "".join(page.text.split()), "the amounts are grouped by narrow spaces"
    assert all(label in page.text for label in statement_page.LABELS.values())
    assert "&amp;nbsp" not in statement_page.page(document)


def test_a_table_has_every_line_of_money(ledger):
    """As CSV: its name, minor units, the amount of the currency, also of one without such units, and whose it is."""
    closed(ledger, Policy(currency="JPY", minor_digits=0, pool=1_000))
    document = issued(ledger)
    lines = statement_page.table(document).splitlines()

    assert "line,minor units,amount in JPY,client,period" == lines[0]
    assert len(document["money"]) + 1 == len(lines)
    assert f"payout,{document['money']['payout']},{document['money']['payout']},bank,2026-11" in lines


@pytest.mark.long
def test_a_held_client_is_told_so(ledger):
    """What a hold withholds is on its statement, and adds up."""
    ledger.append(make_receipt("r1"))
    holds.place(ledger, "client", "bank", "audit", "me")
    periods.close(ledger, "2026-11", POLICY, "me")
    seal(ledger, KEY, ORIGIN)
    document = issued(ledger)

    assert ("0", True) == (document["money"]["payout"], int(document["money"]["held"]) > 0)
    assert statements.verify(document, [KEY.public], ORIGIN)
    shown = dict(statement_page.rows(document))
    assert shown["Withheld by a hold"] != shown["To be paid"]
