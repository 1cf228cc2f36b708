"""Keys open what they were made for until they expire or are revoked; nothing that is kept can be used to try one."""

import hmac
import json
import logging
import pickle
import threading
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text, update
from sqlmodel import col

from rewards.errors import KeyRefusedError, KeyRingError, LedgerError
from rewards.keys.ring import OVERLAP_S, KeyRing
from rewards.keys.rules import MOST, ROLES, require_sound
from rewards.ledger.ledger import Ledger
from rewards.store import events
from rewards.store.database import now_us
from rewards.store.tables import ApiKeyRow

PEPPER = bytes(range(32))
DAY_US = 24 * 3600 * 1_000_000
A_MEMBER = {"client": "bank"}


@pytest.fixture
def keys(url):
    """The keys of an empty ledger."""
    keys = KeyRing(url, PEPPER)
    yield keys
    keys.close()


def make(keys, role="application", label="shop", **limits):
    """A new key, as it is presented."""
    return keys.create(role, label, actor="tester", **(A_MEMBER if role == "member" else {}), **limits)


def id_of(presented):
    return presented.split("_")[1]


def row_of(keys, presented):
    with keys.database.read() as connection:
        return connection.execute(select(ApiKeyRow).where(col(ApiKeyRow.key_id) == id_of(presented))).mappings().one()


def change(keys, presented, **fields):
    """What time would do, at once."""
    with keys.database.write() as connection:
        connection.execute(update(ApiKeyRow).where(col(ApiKeyRow.key_id) == id_of(presented)).values(**fields))


def written(keys, *kinds):
    with keys.database.read() as connection:
        return events.find(connection, kinds=kinds)


@pytest.mark.parametrize("role", ROLES)
def test_a_created_key_verifies(keys, role):
    """A key is recognised by itself alone, with its role, label and client."""
    presented = make(keys, role, "treasury")
    key = keys.check(presented)

    assert (role, "treasury", None) == (key.role, key.label, key.revoked_at_us)
    assert ("bank" if role == "member" else None) == key.client
    assert presented.startswith(f"ptk_{key.key_id}_")
    assert key == keys.verify(presented)


def test_keys_are_long_and_never_the_same(keys):
    """Every key has an id and at least 128 random bits of its own."""
    created = [make(keys) for _ in range(20)]

    assert 20 == len(set(created)) == len({key.split("_")[1] for key in created})
    assert all(len(key.split("_", 2)[2]) == 43 for key in created)  # 43 characters of base64 are 256 bits


def test_what_is_stored_is_a_hash_under_the_pepper(keys):
    """The table holds HMAC-SHA-256 of the secret under the pepper, which is never the plain SHA-256 of anything."""
    presented = make(keys)
    secret = presented.split("_", 2)[2]
    stored = row_of(keys, presented)["secret_hmac"]

    assert hmac.new(PEPPER, secret.encode(), "sha256").hexdigest() == stored
    assert stored not in {sha256(text.encode()).hexdigest() for text in (secret, presented)}


@pytest.mark.parametrize("role", ["application", "operator"])
def test_the_secret_is_never_stored(sqlite_url, tmp_path, role):
    """Neither a key nor its secret nor the pepper is anywhere in the files of the ledger."""
    keys = KeyRing(sqlite_url, PEPPER)
    presented = make(keys, role)
    rotated = keys.rotate(id_of(presented), actor="tester")
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    keys.close()

    assert id_of(presented).encode() in stored
    for key in (presented, rotated):
        assert key.split("_", 2)[2].encode() not in stored
    assert PEPPER not in stored
    assert PEPPER.hex().encode() not in stored


def test_no_event_log_or_repr_tells_a_secret(keys, caplog):
    """The book of events, logs, errors and reprs hold no key, no secret, no stored hash and no pepper."""
    caplog.set_level(logging.DEBUG)
    presented = make(keys)
    rotated = keys.rotate(id_of(presented), actor="tester", overlap_s=0)
    keys.revoke(id_of(rotated), actor="tester")
    refusals = []
    for key in (presented, rotated):
        with pytest.raises(KeyRefusedError) as refused:
            keys.check(key)
        refusals.append(repr(refused.value))
    told = [*refusals, repr(keys), repr(keys.list()), caplog.text, repr(written(keys, "key.created", "key.rotated"))]

    for key in (presented, rotated):
        for hidden in (key, key.split("_", 2)[2], row_of(keys, key)["secret_hmac"]):
            assert all(hidden not in each for each in told)
    assert all(str(PEPPER) not in each and PEPPER.hex() not in each for each in told)


def test_what_is_not_a_key_does_not_verify(keys):
    """Malformed, unknown, altered and foreign keys are all the same: unknown."""
    presented = make(keys)
    other = make(keys, "operator")
    swapped = "_".join([*presented.split("_")[:2], other.split("_", 2)[2]])
    altered = presented[:-1] + ("A" if presented[-1] != "A" else "B")
    wrong = [
        "",
        "ptk_",
        "ptk__",
        presented[:-1],
        presented + "A",
        presented + "\n",
        presented.upper(),
        altered,
        swapped,
    ]
    odd = ["ptk_\ud800_x", "Bearer " + presented, "ptk_" + "0" * 12 + "_" + "A" * 43, "é" * 60, "x" * 100_000]

    for text_ in wrong + odd:
        assert keys.verify(text_) is None
        with pytest.raises(KeyRefusedError, match="not known") as refused:
            keys.check(text_)
        assert "unknown" == refused.value.reason


def test_under_another_pepper_no_key_verifies(url, keys):
    """With the whole database but the wrong pepper, every key is unknown."""
    created = [make(keys, role) for role in ROLES]
    other = KeyRing(url, bytes(32))

    assert [None] * 5 == [other.verify(presented) for presented in created]
    other.close()


@pytest.mark.parametrize("pepper", [b"", b"x" * 31, b"x" * 33])
def test_a_pepper_of_another_length_is_refused(url, pepper):
    """A hash under a short pepper would be no better than a plain one."""
    with pytest.raises(KeyRingError, match="32 bytes"):
        KeyRing(url, pepper)


def test_without_the_pepper_keys_are_listed_and_revoked_and_nothing_else(url, keys):
    """Who lost the pepper can still see and revoke keys; making and checking them says what is missing."""
    presented = make(keys)
    bare = KeyRing(url, None)
    bare.revoke(id_of(presented), actor="tester")

    assert ["revoked"] == [key.state(now_us()) for key in bare.list()]
    for wish in (lambda: make(bare), lambda: bare.check(presented)):
        with pytest.raises(KeyRingError, match="pepper"):
            wish()
    bare.close()


def test_a_revoked_key_is_closed_and_stays_listed(keys):
    """A revoked key verifies no more, other keys do, and revoking again keeps the first moment and writes nothing."""
    gone, kept = make(keys, label="gone"), make(keys, label="kept")
    key_id = id_of(gone)
    keys.revoke(key_id, actor="tester")
    revoked_at_us = keys.list()[0].revoked_at_us
    keys.revoke(key_id, actor="another")

    assert keys.verify(gone) is None
    assert "kept" == keys.verify(kept).label
    assert [("gone", revoked_at_us), ("kept", None)] == [(key.label, key.revoked_at_us) for key in keys.list()]
    (event,) = written(keys, "key.revoked")
    assert (key_id, "tester", {"revoked_at_us": revoked_at_us}) == (event.subject, event.actor, event.document)


def test_only_who_has_the_secret_learns_why(keys):
    """The right secret is told "revoked" or "expired"; a wrong one of the same key is told "unknown"."""
    revoked, expired = make(keys), make(keys, expires_at_us=now_us() + DAY_US)
    keys.revoke(id_of(revoked), actor="tester")
    change(keys, expired, expires_at_us=now_us())
    for presented, reason in ((revoked, "revoked"), (expired, "expired")):
        guess = presented[:-2] + ("AA" if presented[-2:] != "AA" else "BB")
        for tried, told in ((presented, reason), (guess, "unknown")):
            with pytest.raises(KeyRefusedError) as refused:
                keys.check(tried)
            assert told == refused.value.reason


def test_a_refusal_survives_pickling():
    """It may cross processes, reason and all."""
    error = pickle.loads(pickle.dumps(KeyRefusedError("no", "expired")))

    assert ("no", "expired") == (str(error), error.reason)


def test_a_key_expires_by_itself(keys):
    """From its moment on a key is refused; before, it is good."""
    presented = make(keys, expires_at_us=now_us() + DAY_US)
    assert "valid" == keys.check(presented).state(now_us())
    assert "expired" == keys.check(presented).state(keys.check(presented).expires_at_us)

    change(keys, presented, expires_at_us=now_us())
    assert keys.verify(presented) is None


def test_every_key_is_an_event_that_holds_all_but_what_could_be_tried(keys):
    """`key.created` holds every immutable column, and of the stored hash only a hash: a table row can be checked."""
    presented = make(
        keys, token_budget=1000, requests_per_minute=60, concurrency=4, weight=2, expires_at_us=now_us() + DAY_US
    )
    row = dict(row_of(keys, presented))
    (event,) = written(keys, "key.created")

    for mutable in ("revoked_at_us", "last_used_at_us", "last_used_sha256"):
        del row[mutable]
    secret_hmac = row.pop("secret_hmac")
    assert {**row, "secret_sha256": sha256(secret_hmac.encode("ascii")).hexdigest()} == event.document
    assert (id_of(presented), "tester") == (event.subject, event.actor)


def test_rotation_makes_a_like_key_and_lets_both_work_for_a_while(keys):
    """The new key has the old one's role, label, client, limits and length of life; the old one works a day more."""
    limits = {"token_budget": 5, "requests_per_minute": 6, "concurrency": 7, "weight": 8}
    old = make(keys, expires_at_us=now_us() + 90 * DAY_US, **limits)
    before_us = now_us()
    new = keys.rotate(id_of(old), actor="admin")
    first, second = keys.check(old), keys.check(new)

    assert limits == {name: getattr(second, name) for name in limits}
    alike = ("role", "label", "client", *limits)
    assert [getattr(first, name) for name in alike] == [getattr(second, name) for name in alike]
    assert first.key_id == second.rotated_from
    assert before_us + OVERLAP_S * 1_000_000 <= first.expires_at_us <= now_us() + OVERLAP_S * 1_000_000
    assert pytest.approx(90 * DAY_US, abs=60_000_000) == second.expires_at_us - second.created_at_us
    (event,) = written(keys, "key.rotated")
    assert (first.key_id, "admin") == (event.subject, event.actor)
    assert {"replaced_by": second.key_id, "expires_at_us": first.expires_at_us} == event.document


def test_rotation_without_overlap_ends_the_old_key(keys):
    """An overlap of nothing is an exchange."""
    old = make(keys, "member")
    new = keys.rotate(id_of(old), actor="admin", overlap_s=0)

    assert (None, "bank") == (keys.verify(old), keys.check(new).client)


def test_rotation_never_lengthens_the_life_of_the_old_key(keys):
    """A key that ends before the overlap does ends when it would have."""
    ends_at_us = now_us() + DAY_US // 2
    old = make(keys, expires_at_us=ends_at_us)
    keys.rotate(id_of(old), actor="admin")

    assert ends_at_us == keys.check(old).expires_at_us


def test_a_key_is_rotated_once_and_only_while_it_is_valid(keys):
    """A second rotation names the successor; revoked, expired and unknown keys are not rotated; nothing is written."""
    old, revoked, expired = make(keys), make(keys), make(keys, expires_at_us=now_us() + DAY_US)
    new = keys.rotate(id_of(old), actor="admin")
    keys.revoke(id_of(revoked), actor="admin")
    change(keys, expired, expires_at_us=now_us())
    before = keys.list()

    for presented, named in ((old, id_of(new)), (revoked, "revoked"), (expired, "expired"), ("ptk_nobody_", "nobody")):
        with pytest.raises(KeyRingError, match=named):
            keys.rotate(id_of(presented), actor="admin")
    for overlap_s in (-1, 10**10):
        with pytest.raises(KeyRingError, match="overlap_s"):
            keys.rotate(id_of(new), actor="admin", overlap_s=overlap_s)
    assert before == keys.list()
    assert 1 == len(written(keys, "key.rotated"))


def test_of_two_rotations_at_once_one_wins(url, keys):
    """Racing rotations of one key, each with its own connections, make one successor."""
    old = id_of(make(keys))
    rings = [KeyRing(url, PEPPER) for _ in range(4)]
    outcomes, start = [], threading.Barrier(4)

    def rotate(ring):
        start.wait()
        try:
            outcomes.append(ring.rotate(old, actor="admin"))
        except KeyRingError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=rotate, args=(ring,)) for ring in rings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ring in rings:
        ring.close()

    assert 1 == sum(isinstance(outcome, str) for outcome in outcomes)
    assert 2 == len(keys.list())


def test_unknown_keys_cannot_be_revoked(keys):
    """Revoking what does not exist is told, by its id."""
    with pytest.raises(KeyRingError, match="'nobody'"):
        keys.revoke("nobody", actor="tester")


def test_a_members_key_needs_a_registered_client(keys):
    """A client that is not registered is named with those that are."""
    with pytest.raises(KeyRingError, match=r"'nobody'.*bank, clinic, rider"):
        keys.create("member", "x", actor="tester", client="nobody")
    assert () == keys.list()
    assert [] == written(keys, "key.created")


@pytest.mark.parametrize(
    ("wish", "named"),
    [
        ({"role": "emperor"}, "'emperor'"),
        ({"role": ""}, "role"),
        ({"label": ""}, "label"),
        ({"label": "a\nb"}, "label"),
        ({"label": "x" * 101}, "label"),
        ({"role": "member"}, "client"),
        ({"role": "operator", "client": "bank"}, "'bank'"),
        ({"expires_at_us": 1}, "expires_at_us"),
        ({"expires_at_us": 2**53}, "expires_at_us"),
        ({"token_budget": -1}, "token_budget"),
        ({"token_budget": 2**53}, "token_budget"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"concurrency": 0}, "concurrency"),
        ({"weight": 0}, "weight"),
        ({"role": "member", "client": "bank", "concurrency": 1}, "concurrency"),
        ({"role": "admin", "requests_per_minute": 5}, "requests_per_minute"),
        ({"role": "auditor", "token_budget": 5}, "token_budget"),
    ],
)
def test_what_does_not_hold_together_is_not_made(keys, wish, named):
    """What is wrong is named, and neither a key nor an event is written."""
    with pytest.raises(KeyRingError, match=named):
        keys.create(**{"role": "application", "label": "x", "actor": "tester", **wish})
    assert () == keys.list()
    assert [] == written(keys, "key.created")


@given(
    role=st.sampled_from(ROLES),
    client=st.none() | st.just("bank"),
    budget=st.none() | st.integers(-2, 2) | st.integers(MOST - 1, MOST + 1),
    rate=st.none() | st.integers(-1, 2) | st.integers(MOST - 1, MOST + 1),
    expires_at_us=st.none() | st.integers(99, 101),
    concurrency=st.none() | st.integers(-1, 2) | st.integers(MOST - 1, MOST + 1),
    weight=st.none() | st.integers(-1, 2),
)
def test_a_sound_key_is_one_that_the_table_takes(role, client, budget, rate, expires_at_us, concurrency, weight):
    """Exactly this is sound: a client for members alone, limits in range for applications alone, an end ahead."""
    fields = {
        "role": role,
        "label": "x",
        "client": client,
        "created_at_us": 100,
        "expires_at_us": expires_at_us,
        "token_budget": budget,
        "requests_per_minute": rate,
        "concurrency": concurrency,
        "weight": weight,
    }
    is_sound = (
        (role == "member") == (client is not None)
        and (expires_at_us is None or expires_at_us > 100)
        and (budget is None or (role == "application" and 0 <= budget <= MOST))
        and all(
            limit is None or (role == "application" and 1 <= limit <= MOST) for limit in (rate, concurrency, weight)
        )
    )
    try:
        require_sound(fields)
    except KeyRingError:
        assert not is_sound
    else:
        assert is_sound


def test_the_last_use_is_noted_at_most_once_a_minute(keys):
    """The first use is noted, another soon after is not, and one a minute later is."""
    presented = make(keys)
    keys.note_use(keys.check(presented))
    first = keys.check(presented).last_used_at_us
    keys.note_use(keys.check(presented))

    assert first is not None
    assert first == keys.check(presented).last_used_at_us
    fresh = keys.check(presented)
    change(keys, presented, last_used_at_us=first - 61_000_000)
    keys.note_use(fresh)  # what was read of the key says that it was noted just now
    assert first - 61_000_000 == keys.check(presented).last_used_at_us
    keys.note_use(keys.check(presented))
    assert first <= keys.check(presented).last_used_at_us


def test_a_last_use_that_cannot_be_noted_disturbs_nobody(keys, caplog):
    """Where the table cannot be written, it is logged, by the key's id alone."""
    presented = make(keys)
    key = keys.check(presented)
    with keys.database.write() as connection:
        connection.execute(text("DROP TABLE api_keys"))
    keys.note_use(key)

    assert f"key {key.key_id} was not noted" in caplog.text
    assert presented.split("_", 2)[2] not in caplog.text


def test_a_database_that_is_away_is_not_a_refusal(keys):
    """Who cannot look a key up says so; it is not "unknown"."""
    presented = make(keys)
    with keys.database.write() as connection:
        connection.execute(text("DROP TABLE api_keys"))
    with pytest.raises(LedgerError):
        keys.verify(presented)


def test_keys_of_different_ledgers_are_strangers(url, tmp_path):
    """A key of one ledger is unknown to another, even under the same pepper."""
    other_url = f"sqlite:///{tmp_path}/other.db"
    Ledger.prepare(other_url)
    mine, other = KeyRing(url, PEPPER), KeyRing(other_url, PEPPER)
    presented = make(mine)

    assert other.verify(presented) is None
    assert json.dumps([key.key_id for key in mine.list()]) != json.dumps([key.key_id for key in other.list()])
    mine.close()
    other.close()


def test_a_valid_key_is_found_by_its_id(keys):
    """Without the secret, for who presented it before; an unknown, expired or revoked one is refused as by `check`."""
    presented, old, revoked = make(keys, "member"), make(keys), make(keys)
    change(keys, old, expires_at_us=now_us() - 1)
    keys.revoke(id_of(revoked), actor="tester")

    assert keys.check(presented) == keys.find_valid(id_of(presented))
    for key_id, why in ((id_of(old), "expired"), (id_of(revoked), "revoked"), ("0" * 12, "unknown"), ("", "unknown")):
        with pytest.raises(KeyRefusedError) as refused:
            keys.find_valid(key_id)
        assert why == refused.value.reason


def test_what_is_derived_of_the_pepper_is_another_secret_for_each_purpose(keys, url):
    """The same for the same pepper and purpose, and neither the pepper nor a hash of a key."""
    again, without = KeyRing(url, PEPPER), KeyRing(url, None)

    assert keys.derive(b"sessions") == again.derive(b"sessions")
    assert 4 == len({PEPPER, keys.derive(b"sessions"), keys.derive(b"forms"), keys.derive(b"")})
    assert {32} == {len(keys.derive(purpose)) for purpose in (b"", b"sessions")}
    with pytest.raises(KeyRingError, match="without the pepper"):
        without.derive(b"sessions")
    again.close()
    without.close()
