"""The member's page: its commands do what it says, as they stand there, against a service."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from attribution.rounds.stored_tensors import read_stored
from deployment.books import statement_page
from rewards.log.publication_proofs import publication_proof
from rewards.log.sealer import seal
from rewards.signing.keys import SigningKey
from tests.deployment.api.world import ORIGIN
from tests.deployment.console.sites import Site, world_site
from tests.deployment.gateway.engines import CARD
from tests.deployment.recorded_bundles import Document, manifest_document, publish_document
from tests.pages import ROOT, Page
from tests.wanted import program

PAGE = Page("deployment/members/README.md", (ROOT / "deployment" / "members" / "README.md").read_text(encoding="utf-8"))
CLIENT = "clinic"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service over books with something of everything; this member is the clinic."""
    with world_site(tmp_path_factory.mktemp("world")) as site:
        yield site


@pytest.fixture(scope="module")
def folder(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a member has before it begins: an update, the model that it came of, and the ledger's public key."""
    folder = tmp_path_factory.mktemp("member")
    for number, name in enumerate(("global", "update")):
        save_file({"weight": np.full((2, 2), number, np.float32)}, folder / f"{name}.safetensors")
    key = SigningKey.load(site.world.books.signing_key)
    (folder / "ledger.pub").write_text(f"{key.public.encode()}\n")
    (folder / "protoken").write_text(f'#!/bin/sh\nexec {sys.executable} -m deployment.cli "$@"\n')
    (folder / "protoken").chmod(0o755)
    return folder


def section(title: str) -> str:
    """A section's commands, as they stand on the page."""
    text = PAGE.text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks, f"the page has no commands under {title!r}"
    return "".join(blocks)


def run(site: Site, folder: Path, title: str) -> str:
    """What a section's commands print; each has to end well."""
    (told,) = re.findall(r"^export (.*)$", PAGE.text, flags=re.MULTILINE)
    key = site.world.books.keys.create("member", "own", actor="test", client=CLIENT)
    own = {"SERVICE": site.address, "KEY": key, "CLIENT": CLIENT, "PERIOD": "first", "RESPONSE": "clinic-alone"}
    assert [*own] == [each.partition("=")[0] for each in told.split()]
    variables = os.environ | own | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    done = subprocess.run(
        [program("bash", "bash"), "-euc", section(title)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def served(site: Site, folder: Path) -> None:
    """What aggregator and operator do then: a bundle with the member's update is published, and proved to be."""
    document = manifest_document(CARD.name, ["bank", CLIENT], 1, seed="member")
    _credit(document, folder)
    ledger = site.world.books.ledger
    place = publish_document(ledger, folder / "bundle", document)
    (folder / "consortium.json").write_bytes((place / "consortium.json").read_bytes())
    seal(ledger, SigningKey.load(site.world.books.signing_key), ORIGIN)
    with ledger.database.read() as connection:
        (folder / "published.json").write_text(json.dumps(publication_proof(connection, CARD.name, None)))


def _credit(document: Document, folder: Path) -> None:
    """Let the only round have the update that was signed."""
    document["clients"][1]["signing_key"] = (folder / "clinic.pub").read_text().strip()
    (entry,) = document["rounds"]
    entry["before_sha256"] = read_stored(folder / "global.safetensors").sha256
    entry["updates"][1] |= {
        "declared": 120.0,
        "sha256": read_stored(folder / "update.safetensors").sha256,
        "statement": (folder / "sent" / "round-1.json").read_text().strip(),
    }


def test_a_member_signs_and_finds_what_it_sent(site: Site, folder: Path) -> None:
    """From a key to the proof that the bundle in service credits what was signed."""
    signed = run(site, folder, "When you train")
    served(site, folder)
    checked = run(site, folder, "When a new model is served")

    assert "signed for round 1 of hospital-net" in signed
    assert "credited" in checked
    assert "in the signed books" in checked


def test_a_member_checks_what_it_is_paid(site: Site, folder: Path) -> None:
    """Explanation and statement are fetched, the statement is verified offline, and says what the page explains."""
    shown = run(site, folder, "When a period is settled")
    explanation = json.loads((folder / "explanation.json").read_text())
    statement = json.loads((folder / "statement.json").read_text())

    assert 5 <= shown.count("✓")
    assert statement["money"]["payout"] == explanation["steps"][-1]["amount"]
    assert (folder / "statement.html").read_text().startswith("<!DOCTYPE html>")


def test_a_member_proves_an_entry_and_that_history_was_kept(site: Site, folder: Path) -> None:
    """An entry is in the signed books, and these extend the checkpoint that was kept."""
    told = run(site, folder, "Any day")

    assert "clinic has 2 999 983 micro-credits of clinic-alone" in told
    assert "extends the" in told
    assert {"clinic-alone"} <= {
        each["response_id"] for each in json.loads((folder / "entries.json").read_text())["data"]
    }


def test_the_page_explains_the_lines_of_a_statement() -> None:
    """Each line of money in its table is called as the statement calls it."""
    table = PAGE.text.partition("| the statement says |")[2].partition("\n\n")[0]
    named = re.findall(r"\*([A-Z][^*]+)\*", table)
    labels = [*statement_page.LABELS.values(), "Share of all credit", "Part of what is shared out", "Measured"]
    labels += ["Credit, in millionths of a token", "Standard error, of all credit"]

    assert len(named) >= 9
    assert [] == [name for name in named if not any(label.startswith(name) for label in labels)]
