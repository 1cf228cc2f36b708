"""A member sees in a bundle what became of each update that it sent: credited, dropped, altered, or not its own."""

from dataclasses import replace

import pytest

from deployment.members.own_updates import own_updates
from deployment.members.signed_updates import read_statement, sign_update
from rewards.errors import SignatureError
from rewards.signing.keys import SigningKey
from tests.attribution.rounds.federations import write_rounds
from tests.deployment.members.signed_rounds import (
    KEYS,
    altered,
    manifest_of,
    sign_rounds,
    statements,
)

OTHER = "f" * 64


@pytest.fixture
def recorded(tmp_path):
    """Two rounds, every update signed; south was absent from the second."""
    return sign_rounds(write_rounds(tmp_path / "rounds"))


def standings(manifest, kept, client="north"):
    return [(each.round, each.standing) for each in own_updates(manifest, client, KEYS[client].public, kept)]


def test_what_was_sent_is_credited(recorded):
    """With the weight that it has in its round."""
    found = own_updates(manifest_of(recorded), "north", KEYS["north"].public, statements(recorded, "north"))

    assert [(1, "credited", 1 / 3), (2, "credited", 1 / 2)] == [
        (each.round, each.standing, each.weight) for each in found
    ]
    assert not any(each.is_wrong for each in found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": OTHER}, f"and the bundle has '{OTHER}'"),
        ({"declared": 2.0}, "you signed weight 1.0"),
    ],
)
def test_an_altered_update_is_seen(changes, words, recorded):
    """Other tensors or another weight under the member's name, whatever statement stands beside."""
    manifest = altered(manifest_of(recorded), 2, "north", **changes)
    (_, second) = own_updates(manifest, "north", KEYS["north"].public, statements(recorded, "north"))

    assert ("altered", True) == (second.standing, second.is_wrong)
    assert words in second.reason


def test_a_bundle_without_rounds_credits_nothing_that_was_sent(recorded):
    """What was kept is asked about; where nothing was, there is nothing to tell."""
    manifest = manifest_of(recorded).model_copy(update={"rounds": None})

    assert [(1, "not credited"), (2, "not credited")] == standings(manifest, statements(recorded, "north"))
    assert [] == standings(manifest, {})


def test_a_dropped_update_is_seen(recorded):
    """What the member sent and kept is not in the bundle, which does not say why."""
    manifest = altered(manifest_of(recorded), 2, "north")

    assert [(1, "credited"), (2, "not credited")] == standings(manifest, statements(recorded, "north"))


def test_an_update_that_was_left_out_says_why(recorded):
    """The round names the client and the reason: south had signed, and its answer did not come in time."""
    (first,) = statements(recorded, "south").values()
    sent = read_statement(first, KEYS["south"].public)
    late = type(sent)(**{**vars(sent), "round": 2})
    kept = {"1.json": first, "2.json": sign_update(late, KEYS["south"])}
    found = own_updates(manifest_of(recorded), "south", KEYS["south"].public, kept)

    assert [("credited", ""), ("not credited", "left out: no answer")] == [
        (each.standing, each.reason) for each in found
    ]


def test_a_round_that_came_later_is_not_missed(tmp_path):
    """A bundle of the first round cannot hold what was sent in the second."""
    both = sign_rounds(write_rounds(tmp_path / "two"))
    one = sign_rounds(write_rounds(tmp_path / "one", rounds=1))
    found = own_updates(manifest_of(one), "north", KEYS["north"].public, statements(both, "north"))

    assert [(1, "credited"), (2, "not in this bundle yet")] == [(each.round, each.standing) for each in found]
    assert not any(each.is_wrong for each in found)


@pytest.mark.parametrize(
    ("changes", "standing"),
    [({"statement": None}, "not signed"), ({"statement": "{}"}, "not signed"), ({"round": 2}, "not kept")],
)
def test_what_stands_under_its_name_and_was_not_kept_is_seen(changes, standing, recorded):
    """Unsigned, signed by somebody else, or signed and lost: each is something to ask about."""
    manifest = manifest_of(recorded)
    if "statement" in changes:
        manifest = altered(manifest, 2, "north", **changes)
    kept = {name: text for name, text in statements(recorded, "north").items() if name == "1.json"}

    assert [(1, "credited"), (2, standing)] == standings(manifest, kept)


def test_a_round_that_was_begun_again_is_told_apart(recorded):
    """Two were signed for it, and one is credited: the other is something to ask about, and says what it may be."""
    kept = statements(recorded, "north")
    first = read_statement(kept["1.json"], KEYS["north"].public)
    kept["broken off.json"] = sign_update(replace(first, sha256=OTHER), KEYS["north"])
    listed = own_updates(manifest_of(recorded), "north", KEYS["north"].public, kept)

    assert [(1, "credited"), (1, "altered"), (2, "credited")] == [(each.round, each.standing) for each in listed]
    assert ["", "put this one away", ""] == [each.reason.rpartition(", ")[2] for each in listed]


def test_a_key_with_a_line_break_is_the_same_key(recorded):
    """As it is when it was pasted from a file: whose signatures hold under it is its owner."""
    manifest = manifest_of(recorded)
    clients = [each.model_copy(update={"signing_key": f"{each.signing_key}\n"}) for each in manifest.clients]

    kept = statements(recorded, "north")
    assert [(1, "credited"), (2, "credited")] == standings(manifest.model_copy(update={"clients": (*clients,)}), kept)


def test_another_key_in_its_place_is_refused(recorded):
    """Whoever put a key of its own on the front page could have signed anything."""
    mine = SigningKey(KEYS["north"].name, bytes([9]) * 32)

    with pytest.raises(SignatureError, match="which is not your"):
        own_updates(manifest_of(recorded), "north", mine.public, {})


@pytest.mark.parametrize(
    ("client", "kept_of", "words"),
    [
        ("east", None, "none of the bundle's: north, south, west"),
        ("north", "west", "1.json: .*not among the known keys"),
    ],
)
def test_what_is_not_the_members_is_refused(client, kept_of, words, recorded):
    """A client that is not there, and statements of somebody else, by file."""
    kept = {} if kept_of is None else statements(recorded, kept_of)

    with pytest.raises(SignatureError, match=words):
        own_updates(manifest_of(recorded), client, KEYS["north"].public, kept)
