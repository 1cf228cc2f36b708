"""Rounds in the console: which is served since when, who contributed what, and what a member is shown of it."""

import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rewards.store import publications
from tests.deployment.api.reading import DATABASES
from tests.deployment.api.world import World
from tests.deployment.console.conftest import SignIn
from tests.deployment.console.documents import Document
from tests.deployment.gateway.engines import CARD
from tests.deployment.recorded_bundles import alter, manifest_document, publish_document

OTHERS = ("clinic", "Clinic", "school", "a secret reason", "node 99", "it was signed for round")


@pytest.fixture
def folders(world: World, tmp_path: Path) -> tuple[Path, Path]:
    """Two published bundles: of two rounds; and of three, with a forged signature, somebody missing and a gap."""
    ledger, clients = world.books.ledger, ["clinic", "bank", "school"]
    first = publish_document(ledger, tmp_path / "first", manifest_document(CARD.name, clients, 2), "service")
    document = manifest_document(CARD.name, clients, 3)
    replayed = document["rounds"][0]["updates"][0]["statement"]
    alter(document, 2, "clinic", lambda update: update.update(statement=replayed))
    document["rounds"][1]["missing"] = [
        {"client": "clinic", "node": None, "reason": "a secret reason to be late"},
        {"client": None, "node": "99", "reason": "no member"},
    ]
    document["rounds"][2]["missing"] = [{"client": "bank", "node": "17", "reason": "lost its connection"}]
    for each in document["rounds"]:
        each["updates"] = [update for update in each["updates"] if update["client"] != "school"]
    document["rounds"][2]["updates"].pop()
    return first, publish_document(ledger, tmp_path / "second", document)


def ids(world: World) -> list[int]:
    """The publications of the consortium, oldest first."""
    with world.books.ledger.database.read() as connection:
        return [each.sequence for each in publications.history(connection, CARD.name)]


def test_without_a_publication_the_page_says_so(sign_in: SignIn) -> None:
    """And how there would be one."""
    for role in ("operator", "member"):
        page = Document.of(sign_in(role).get("/console/rounds"))
        assert "Nothing was published yet" in page.words
        assert [] == page.tables


@pytest.mark.parametrize("role", ["operator", "auditor", "admin"])
def test_who_contributed_what_is_shown(sign_in: SignIn, folders: tuple[Path, Path], role: str) -> None:
    """Of the bundle that is served: each update with its weight, norm and signature, the server, and absences."""
    page = Document.of(sign_in(role).get("/console/rounds"))
    second = page.table("Round 2:")
    clinic, bank, server = second.row("A clinic"), second.row("A bank"), second.row("The server")

    assert ("1", "33.3 %", "✗ does not hold statement: it was signed for round 1, and this is 2", "kept") == tuple(
        clinic[name] for name in ("Norm", "Weight", "Signature", "Receipt")
    )
    assert ("2", "– unsigned", "none") == tuple(bank[name] for name in ("Norm", "Signature", "Receipt"))
    assert ("0.5", "—") == (server["Norm"], server["Signature"])
    assert "The server besides averaging; no client’s; 50.0 % of what clients changed" == server["Who"]
    assert "✓ signed" == page.table("Round 1:").row("A clinic")["Signature"]
    missing = ["bank: lost its connection", "clinic: a secret reason to be late", "node 99: no member"]
    assert missing == [item for item in page.items if ": " in item]
    for words in (
        "Never took part school",
        "Unsigned updates 2: bank 2",
        "Updates cut to the median norm of their round: on",
        "Declared examples cut to this multiple of the median: 2",
        "Updates left out that are as alike as this cosine: off",
        "Nobody’s part norm 0.5",
    ):
        assert words in page.words


def test_publications_say_which_is_served_since_when(sign_in: SignIn, world: World, folders: tuple[Path, Path]) -> None:
    """By whom, and where it lies; after a rollback the one before is served since then, and the other taken back."""
    browser = sign_in("operator")
    before = Document.of(browser.get("/console/rounds")).table("Publications").rows[1:]
    with world.books.ledger.database.write() as connection:
        publications.withdraw(connection, CARD.name, "command line")
    page = Document.of(browser.get("/console/rounds"))
    after = page.table("Publications").rows[1:]

    assert ["Round 3 shown below", "Round 2"] == [row[0] for row in before]
    assert ["command line", "service"] == [row[3] for row in before]
    assert ["● served since", "followed by another"] == [re.sub(" [0-9].*", "", row[4]) for row in before]
    assert [str(folders[1]), str(folders[0])] == [row[6] for row in before]
    assert ["Round 3", "Round 2 shown below"] == [row[0] for row in after]
    assert ["↩ taken back", "● served since"] == [re.sub(" [0-9].*", "", row[4]) for row in after]
    assert after[0][4].endswith("by command line")
    assert "Training up to round 2" in page.words


def test_an_earlier_bundle_can_be_chosen(sign_in: SignIn, world: World, folders: tuple[Path, Path]) -> None:
    """By the link in its row; what is no publication is not found."""
    browser, (first, _) = sign_in("operator"), ids(world)
    page = Document.of(browser.get(f"/console/rounds?publication={first}"))

    assert f"/console/rounds?publication={first}" in page.links
    assert "Training up to round 2" in page.words
    assert 3 == len(page.table("Round 1:").rows) - 2
    assert 404 == browser.get("/console/rounds?publication=1").status_code
    assert 400 == browser.get("/console/rounds?publication=none").status_code


def test_many_rounds_come_in_pages(sign_in: SignIn, world: World, tmp_path: Path) -> None:
    """The last ones first, and the way to those before them."""
    publish_document(world.books.ledger, tmp_path / "long", manifest_document(CARD.name, ["clinic", "bank"], 23))
    browser, shown = sign_in("operator"), []
    path = "/console/rounds"
    while path:
        page = Document.of(browser.get(path))
        shown.append([int(each.caption[6:].partition(":")[0]) for each in page.tables[1:]])
        path = next((each for each in page.links if "before=" in each), "")

    assert [[*range(23, 13, -1)], [*range(13, 3, -1)], [3, 2, 1]] == shown


def test_a_bundle_that_is_gone_is_said_to_be(sign_in: SignIn, folders: tuple[Path, Path]) -> None:
    """The publications stay; the page names the manifest that would have to be there."""
    browser = sign_in("operator")
    shutil.rmtree(folders[1])
    gone = Document.of(browser.get("/console/rounds"))
    shutil.copytree(folders[0], folders[1])
    other = Document.of(browser.get("/console/rounds"))

    assert 3 == len(gone.table("Publications").rows)
    assert "cannot be shown: the bundle's folder is gone" in gone.words
    assert "cannot be shown: another bundle lies in the bundle's folder now" in other.words
    assert [1, 1] == [len(page.tables) for page in (gone, other)]


def test_a_bundle_without_rounds_takes_one_line(sign_in: SignIn, world: World, tmp_path: Path) -> None:
    """It was merged from finished updates."""
    document = manifest_document(CARD.name, ["clinic", "bank"], 1) | {"aggregation": "fedavg-exact"}
    del document["rounds"], document["start_norm"]
    publish_document(world.books.ledger, tmp_path / "plain", document)
    page = Document.of(sign_in("member").get("/console/rounds"))

    assert "This bundle records no rounds" in page.words
    assert 1 == len(page.tables)


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_a_member_sees_its_own_part(sign_in: SignIn, app: FastAPI, world: World, folders: tuple[Path, Path]) -> None:
    """Its updates and absences, what the server did, and of nobody else anything; no path either."""
    browser, (first, second) = sign_in("member"), ids(world)
    page = Document.of(browser.get("/console/rounds"))

    seen = [(row[0], row[2]) for row in page.table("Round 2:").rows[1:]]
    assert [("bank", "2"), ("The server besides averaging; no client’s", "0.5")] == seen
    assert ["bank: lost its connection"] == [item for item in page.items if ": " in item]
    assert "Your unsigned updates 2 " in page.words
    with TestClient(app, headers={"Authorization": f"Bearer {world.keys['member']}"}) as api:
        answers = [
            api.get(path) for path in ("/api/v1/rounds", *(f"/api/v1/rounds/{each}" for each in (first, second)))
        ]
    answers += [browser.get(f"/console/rounds?publication={each}") for each in (first, second)]
    for answer in answers:
        assert 200 == answer.status_code
        text = unescape(answer.text)
        assert [] == [word for word in (*OTHERS, *map(str, folders)) if word in text], answer.url


def test_a_member_of_another_consortium_sees_nothing_of_it(
    sign_in: SignIn, app: FastAPI, world: World, folders: tuple[Path, Path]
) -> None:
    """Neither that it was published nor what is in it: its publications do not exist."""
    ledger, keys = world.books.ledger, world.books.keys
    ledger.register("harbour", {"port": "A port"})
    key = keys.create("member", "the port", actor="test", client="port")
    browser = sign_in(key)

    assert "Nothing was published yet" in Document.of(browser.get("/console/rounds")).words
    with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as api:
        assert [] == api.get("/api/v1/rounds").json()["data"]
        for each in ids(world):
            assert 404 == browser.get(f"/console/rounds?publication={each}").status_code
            assert 404 == api.get(f"/api/v1/rounds/{each}").status_code
