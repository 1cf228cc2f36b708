"""Whoever reads a bundle finds a statement or receipt in it that does not hold, and knows who did not sign."""

import pytest

from attribution.rounds.reading import read_rounds
from deployment.members.recorded_signatures import receipts_for
from deployment.members.signatures import signature_problems, unsigned_updates
from rewards.signing.keys import SigningKey
from tests.attribution.rounds.federations import write_rounds
from tests.deployment.members.signed_rounds import AGGREGATOR, KEYS, altered, manifest_of, sign_rounds


@pytest.fixture
def manifest(tmp_path):
    """Of two rounds, every update signed and received."""
    recorded = sign_rounds(write_rounds(tmp_path / "rounds"))
    return manifest_of(recorded, receipts_for(recorded, AGGREGATOR))


def test_signatures_that_hold_are_no_problem(manifest):
    """Statements always; receipts under the aggregator's key."""
    assert ([], [], {}) == (
        signature_problems(manifest),
        signature_problems(manifest, [AGGREGATOR.public]),
        unsigned_updates(manifest),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"statement": None}, "its update is not signed, and it has a signing_key"),
        ({"statement": "{}"}, "statement: the document needs a field 'signature'"),
        ({"sha256": "f" * 64}, "statement: it was signed for sha256"),
        ({"declared": 7.0}, "statement: it was signed for weight"),
    ],
)
def test_a_statement_that_does_not_hold_is_a_problem(changes, words, manifest):
    """Round and client are named."""
    (problem,) = signature_problems(altered(manifest, 2, "west", **changes))

    assert problem.startswith("round 2: client 'west': ")
    assert words in problem


def test_a_replayed_statement_is_a_problem(manifest):
    """That of the first round does not hold in the second."""
    first = next(update for update in manifest.rounds[0].updates if update.client == "west")

    (problem,) = signature_problems(altered(manifest, 2, "west", statement=first.statement))
    assert "it was signed for round 1, and this is 2" in problem


@pytest.mark.parametrize(
    ("changes", "words"), [({"receipt": None}, "has not signed for its update"), ({"receipt": "{}"}, "receipt: ")]
)
def test_a_receipt_that_does_not_hold_is_a_problem_for_who_knows_the_key(changes, words, manifest):
    """Who does not know the aggregator's key cannot tell."""
    changed = altered(manifest, 1, "south", **changes)

    assert [] == signature_problems(changed)
    (problem,) = signature_problems(changed, [AGGREGATOR.public])
    assert words in problem


def test_receipts_under_another_key_are_problems(manifest):
    """Each of the five."""
    assert 5 == len(signature_problems(manifest, [SigningKey("hospitals/ledger", bytes([8]) * 32).public]))


def test_who_did_not_sign_is_named(tmp_path):
    """It is no problem: it was taken in by a flag."""
    folder = write_rounds(tmp_path / "rounds")
    sign_rounds(folder, {"west": KEYS["west"]})
    manifest = manifest_of(read_rounds(folder))

    assert ([], {"north": 2, "south": 1}) == (signature_problems(manifest), unsigned_updates(manifest))
