"""Recorded rounds are taken in where every update was signed by the member whose it is, for this very round."""

import pytest

from attribution.rounds.reading import read_rounds
from deployment.members.recorded_signatures import receipts_for, require_signed, sent_updates
from deployment.members.signed_updates import check_receipt, sign_update
from rewards.errors import SignatureError
from tests.attribution.rounds.federations import write_rounds
from tests.deployment.members.signed_rounds import AGGREGATOR, KEYS, alter_update, put_statement, sign_rounds


@pytest.fixture
def folder(tmp_path):
    """Two rounds, every update signed."""
    sign_rounds(write_rounds(tmp_path / "rounds"))
    return tmp_path / "rounds"


def sent(folder, number, client):
    """One update of those rounds."""
    (found,) = (each for each, _ in sent_updates(read_rounds(folder)) if (each.round, each.client) == (number, client))
    return found


def refusal(folder, *, unsigned=False):
    with pytest.raises(SignatureError) as refused:
        require_signed(read_rounds(folder), unsigned=unsigned)
    return str(refused.value)


def test_signed_rounds_are_taken_in(folder):
    """Of all members, also of one that was absent from a round; the flag for unsigned ones changes nothing."""
    require_signed(read_rounds(folder), unsigned=False)
    require_signed(read_rounds(folder), unsigned=True)


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (lambda folder: None, "its update is not signed"),
        (lambda folder: sign_update(sent(folder, 2, "north"), KEYS["west"]), "not among the known keys"),
        (lambda folder: sign_update(sent(folder, 1, "north"), KEYS["north"]), "it was signed for round 1"),
        (lambda folder: sign_update(sent(folder, 2, "west"), KEYS["north"]), 'it was signed for client "west"'),
        (lambda folder: "{", "it is no JSON"),
    ],
    ids=["missing", "foreign key", "another round", "another client", "no JSON"],
)
def test_a_statement_that_does_not_hold_is_refused(forge, words, unsigned, folder):
    """File and client are named; no flag takes the update of a member who has a key without its signature."""
    put_statement(folder, sent(folder, 2, "north"), forge(folder))

    assert words in (said := refusal(folder, unsigned=unsigned))
    assert f"{folder}/round-0002/round.json: client 'north'" in said


def test_an_update_that_was_swapped_is_refused(folder):
    """The aggregator writes other tensors and their hash; the statement is of those that were sent."""
    other, own = (folder / "round-0002" / f"update-{client}.safetensors" for client in ("west", "north"))
    swapped = sent(folder, 2, "west").sha256
    own.write_bytes(other.read_bytes())
    alter_update(folder, 2, "north", lambda update: update.update(sha256=swapped))

    assert "it was signed for sha256" in refusal(folder)


def test_a_weight_that_was_changed_is_refused(folder):
    """What a member declared is signed, too: by it credit is shared out."""
    alter_update(folder, 2, "north", lambda update: update.update(weight=1000.0))

    assert 'it was signed for weight "1.0", and this is "1000.0"' in refusal(folder)


def test_what_nobody_can_sign_needs_the_flag(tmp_path):
    """Without keys nothing is taken in by itself; with the flag it is, but nothing unsigned of one who has a key."""
    folder = write_rounds(tmp_path / "rounds")
    sign_rounds(folder, {"west": KEYS["west"]})

    assert "client 'north': has no signing_key in rounds.json" in refusal(folder)
    require_signed(read_rounds(folder), unsigned=True)
    put_statement(folder, sent(folder, 1, "west"), None)
    assert "client 'west': its update is not signed" in refusal(folder, unsigned=True)


def test_a_statement_without_a_key_to_check_it_is_refused(tmp_path):
    """A front page that lost a key does not make a signed update an unsigned one."""
    folder = write_rounds(tmp_path / "rounds")

    assert "client 'north': has no signing_key" in refusal(folder, unsigned=True)  # its statement says nothing


def test_a_key_that_is_none_is_named(folder):
    """With the front page and the member."""
    page = folder / "rounds.json"
    page.write_text(page.read_text().replace(KEYS["west"].public.encode(), "west+1234"))

    assert f"{page}: members: 'west': signing_key:" in refusal(folder)


def test_every_update_gets_the_aggregators_receipt(folder):
    """Each holds for its update and statement under the aggregator's key."""
    recorded = read_rounds(folder)
    receipts = receipts_for(recorded, AGGREGATOR)

    assert {(each.round, each.client) for each, _ in sent_updates(recorded)} == set(receipts)
    for each, update in sent_updates(recorded):
        check_receipt(receipts[each.round, each.client], each, update.statement, [AGGREGATOR.public])
