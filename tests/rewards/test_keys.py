"""Keys open what they were made for, until they are revoked, and are never kept in clear."""

import pytest

from rewards import KeyRing, KeyRingError


@pytest.fixture
def keys(url):
    """The keys of an empty ledger."""
    keys = KeyRing(url)
    yield keys
    keys.close()


def test_a_created_key_verifies(keys):
    """A key is recognised by itself alone, with its role and label."""
    presented = keys.create("operator", "treasury")
    key = keys.verify(presented)

    assert ("operator", "treasury", None) == (key.role, key.label, key.revoked_at_us)
    assert presented.startswith(f"ptk_{key.key_id}_")


def test_keys_are_long_and_never_the_same(keys):
    """Every key has an id and at least 128 random bits of its own."""
    created = [keys.create("application", "shop") for _ in range(20)]

    assert 20 == len(set(created)) == len({key.split("_")[1] for key in created})
    assert all(len(key.split("_", 2)[2]) == 43 for key in created)  # 43 characters of base64 are 256 bits


@pytest.mark.parametrize("role", ["application", "operator"])
def test_the_secret_is_never_stored(keys, tmp_path, role):
    """Neither a key nor its secret is anywhere in the files of the ledger."""
    presented = keys.create(role, "shop")
    secret = presented.split("_", 2)[2]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert keys.verify(presented).key_id.encode() in stored
    assert secret.encode() not in stored


def test_what_is_not_a_key_does_not_verify(keys):
    """Malformed, unknown, altered and foreign keys are all the same: none."""
    presented = keys.create("application", "shop")
    other = keys.create("operator", "treasury")
    swapped = "_".join([*presented.split("_")[:2], other.split("_", 2)[2]])
    altered = presented[:-1] + ("A" if presented[-1] != "A" else "B")

    for wrong in [
        "",
        "ptk_",
        "ptk__",
        presented[:-1],
        presented + "A",
        presented + "\n",
        presented.upper(),
        altered,
        swapped,
    ]:
        assert keys.verify(wrong) is None
    for odd in ["ptk_\ud800_x", "Bearer " + presented, "ptk_" + "0" * 12 + "_" + "A" * 43, "é" * 60, "x" * 100_000]:
        assert keys.verify(odd) is None


def test_a_revoked_key_is_closed_and_stays_listed(keys):
    """A revoked key verifies no more, other keys do, and revoking again keeps the first moment."""
    gone, kept = keys.create("application", "gone"), keys.create("application", "kept")
    key_id = keys.verify(gone).key_id
    keys.revoke(key_id)
    revoked_at_us = keys.list()[0].revoked_at_us
    keys.revoke(key_id)

    assert keys.verify(gone) is None
    assert "kept" == keys.verify(kept).label
    assert [("gone", revoked_at_us), ("kept", None)] == [(key.label, key.revoked_at_us) for key in keys.list()]


def test_revoking_an_unknown_key_is_an_error(keys):
    """Revoking what does not exist is told, by its id."""
    with pytest.raises(KeyRingError, match="'nobody'"):
        keys.revoke("nobody")


@pytest.mark.parametrize(
    ("role", "label", "named"),
    [("admin", "x", "'admin'"), ("", "x", "role"), ("operator", "", "label"), ("operator", "a\nb", "label")],
)
def test_keys_of_unknown_roles_or_bad_labels_are_not_made(keys, role, label, named):
    """A role that does not exist or a label nobody can read is refused, and no key is made."""
    with pytest.raises(KeyRingError, match=named):
        keys.create(role, label)

    assert () == keys.list()
