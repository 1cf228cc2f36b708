"""Statements in the console: the API's bytes to whoever may have them, and how they are checked."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rewards import statements
from rewards.signing.keys import SigningKey, VerifyKey
from tests.deployment.api.reading import DATABASES
from tests.deployment.api.world import ORIGIN, World
from tests.deployment.console.conftest import SignIn
from tests.deployment.console.documents import Document, minor

PAGES = (
    "periods",
    "periods/first",
    "periods/second",
    "periods/first/explanation/bank",
    "periods/second/explanation/bank",
    "statements",
    "statements?period=first",
    "trust",
    "trust/proof?response=shared-one",
)


def spellings(secret: str) -> list[str]:
    """A text as it is, and a number also as pages write it: as credit, and as money."""
    if not secret.isdecimal():
        return [secret]
    return [secret, f"{int(secret) / 1e6:,.6f}", f"{int(secret) / 100:,.2f}"]


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """The signing key of the world's books."""
    return SigningKey.load(tmp_path / "signing.key")


@pytest.mark.parametrize("role", ["operator", "auditor", "admin", "member"])
def test_a_download_is_what_the_api_gives(role: str, sign_in: SignIn, app: FastAPI, world: World) -> None:
    """Byte for byte in every format, with the API's headers, and signed; whoever may."""
    browser = sign_in(role)
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys[role]}"}) as api:
        for form in ("json", "csv", "html"):
            theirs = api.get("/api/v1/statements/first/bank", params={"format": form})
            ours = browser.get(f"/console/statements/first/bank.{form}")
            assert theirs.content == ours.content
            for header in ("content-type", "content-disposition", "cache-control", "content-security-policy"):
                if header in theirs.headers:
                    assert theirs.headers[header] == ours.headers[header]


def test_a_download_verifies_with_the_keys_beside_it(sign_in: SignIn, key: SigningKey) -> None:
    """What a member takes away holds offline, with the public key that it compares."""
    browser = sign_in("member")
    keys = [VerifyKey.decode(line) for line in browser.get("/console/statements/keys.pub").text.splitlines()]
    document = statements.load(browser.get("/console/statements/first/bank.json").content)
    checked = statements.verify(document, keys, ORIGIN)

    assert [key.public] == keys
    assert ("first", "bank", 5) == (checked.period, checked.client, len(checked.checks))
    page = Document.of(browser.get("/console/statements"))
    assert key.public.encode() in page.words
    assert "protoken statement verify FILE.json --public-key mine.pub" in page.words


def test_every_link_to_a_statement_leads_to_one(sign_in: SignIn) -> None:
    """Of the list and of the period's page, for everybody who sees them."""
    for role, number in (("operator", 9), ("member", 3)):
        browser = sign_in(role)
        for path in ("/console/statements", "/console/periods/first"):
            links = [each for each in Document.of(browser.get(path)).links if "/statements/first/" in each]
            assert number == len(links)
            assert {200} == {browser.get(link).status_code for link in links}


def test_statements_are_found_by_period_and_client(sign_in: SignIn, world: World, key: SigningKey) -> None:
    """The last final period's come first; others, and one client's, by choice; payouts are those of the statements."""
    browser = sign_in("operator")
    ledger = world.books.ledger
    shown = Document.of(browser.get("/console/statements")).table("Statements")

    def listed(**query: str) -> list[list[str]]:
        page = Document.of(browser.get("/console/statements", params=query))
        return [row[:2] for row in page.table("Statements").rows[1:]] if page.tables else []

    assert ["first"] * 3 == [row[0] for row in shown.rows[1:]]
    with ledger.database.read() as connection:
        for client in ("bank", "clinic"):
            money = statements.issue(connection, "first", client, key)["money"]
            row = next(row for row in shown.rows[1:] if row[1].endswith(client))
            assert int(money["payout"]) == minor(row[2])
    assert [["first", "A clinic clinic"]] == listed(client="clinic")
    assert ["A bank bank", "A clinic clinic", "A port port"] == sorted(row[1] for row in listed(period=""))
    assert [] == listed(period="second")
    assert [] == listed(client="nobody")


def test_without_a_signing_key_there_are_no_statements(sign_in: SignIn, world: World, key: SigningKey) -> None:
    """Where the key is gone the page says so, with the list; what there never was is not found."""
    browser = sign_in("member")
    assert world.books.signing_key is not None
    world.books.signing_key.unlink()
    gone = Document.of(browser.get("/console/statements/first/bank.json"), 503)

    assert "The statement cannot be given out now: this service has no signing key to sign with." in gone.words
    for path in ("second/bank.json", "first/bank.pdf", "first/bank", "none/bank.json"):
        assert 404 == browser.get(f"/console/statements/{path}").status_code


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_no_page_of_a_member_tells_of_another_client(sign_in: SignIn, world: World) -> None:
    """No byte of any page or file holds another client's name, id, credit or money, whatever is asked for."""
    browser = sign_in("member")
    for path in (*PAGES, *(f"statements/first/bank.{form}" for form in ("json", "csv", "html"))):
        text = browser.get(f"/console/{path}").text.replace("label of member", "")
        assert [] == [secret for secret in world.secrets for spelt in spellings(secret) if spelt in text], path
    for path, known, unknown in (
        ("statements?client=", "clinic", "nobody"),
        ("trust/proof?response=shared-one&client=", "clinic", "nobody"),
        ("trust/proof?response=", "clinic-alone", "nothing"),
        ("periods/preview?name=", "third", "third"),
        ("statements/first/", "clinic.json", "nobody.json"),
        ("periods/first/explanation/", "clinic", "nobody"),
    ):
        same = {"x-request-id": "same"}
        there, not_there = (browser.get(f"/console/{path}{asked}", headers=same) for asked in (known, unknown))
        assert there.status_code == not_there.status_code
        name, other = known.removesuffix(".json"), unknown.removesuffix(".json")
        assert there.text.replace(name, other) == not_there.text
    for path in ("periods/preview?name=third", "holds", "trust/verify"):
        assert 403 == browser.get(f"/console/{path}").status_code


def test_a_members_line_is_the_apis(sign_in: SignIn, app: FastAPI, world: World) -> None:
    """Its own line of each period, and nothing else of the settlement."""
    browser = sign_in("member")
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['member']}"}) as api:
        for name in ("first", "second"):
            own = api.get(f"/api/v1/periods/{name}").json()["own"]
            table = Document.of(browser.get(f"/console/periods/{name}")).table("Your line")
            shown = {row[0].lstrip("+−= "): row[1] for row in table.rows}
            assert (int(own["gross"]), int(own["payout"])) == (minor(shown["Gross"]), minor(shown["Payout"]))


def test_without_statements_the_page_says_when_there_will_be(sign_in: SignIn, world: World) -> None:
    """A draft has none; the list of a client that never had one leads back to all."""
    page = Document.of(sign_in("operator").get("/console/periods/second"))

    assert "Statements are written when the period becomes final." in page.words
    assert "There is no such statement." in Document.of(sign_in("member").get("/console/statements?period=x")).words
