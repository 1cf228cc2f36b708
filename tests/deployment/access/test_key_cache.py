"""Checked keys pass again for a while: revocations take effect in seconds, outages of the ledger within a minute."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.access import key_cache
from deployment.access.key_cache import AWAY_S, FRESH_S, KeyCache
from rewards.errors import KeyRefusedError, LedgerError
from rewards.keys.ring import KeyRing
from rewards.keys.rules import Key
from rewards.store.database import now_us
from tests.deployment.conftest import PEPPER
from tests.deployment.outages import Clock, away

NOBODY = "ptk_0123456789ab_" + "A" * 43


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(keys: KeyRing, clock: Clock) -> KeyCache:
    return KeyCache(keys.check, clock)


def admit(cache: KeyCache, presented: str) -> Key:
    """As the gate does."""
    return cache.recall(presented) or cache.ask(presented)


def revoke(keys: KeyRing, presented: str) -> None:
    keys.revoke(presented.split("_")[1], actor="test")


def test_a_checked_key_is_not_asked_for_again_at_once(cache: KeyCache, keys: KeyRing, application_key: str) -> None:
    """For some seconds the answer does, though the table is away and nobody notices."""
    key = admit(cache, application_key)
    with away(keys.database, "api_keys"):
        assert key == cache.recall(application_key)


def test_a_revocation_takes_effect_within_seconds(
    cache: KeyCache, clock: Clock, keys: KeyRing, application_key: str
) -> None:
    """Until the answer is old the key passes; then it is refused, and stays so."""
    admit(cache, application_key)
    revoke(keys, application_key)
    clock.now += FRESH_S - 0.1
    admit(cache, application_key)
    clock.now += 0.1
    for _ in range(2):
        with pytest.raises(KeyRefusedError, match="revoked"):
            admit(cache, application_key)


def test_while_the_ledger_is_away_old_answers_do_for_a_minute(
    cache: KeyCache, clock: Clock, keys: KeyRing, application_key: str
) -> None:
    """Known keys pass until their answer is a minute old, then nobody knows; when the ledger is back, all is well."""
    admit(cache, application_key)
    with away(keys.database, "api_keys"):
        for _ in range(int(AWAY_S / FRESH_S)):
            clock.now += FRESH_S
            admit(cache, application_key)
        clock.now += 0.1
        with pytest.raises(LedgerError):
            admit(cache, application_key)
    admit(cache, application_key)


def test_a_key_that_was_never_checked_is_not_admitted_while_the_ledger_is_away(
    cache: KeyCache, keys: KeyRing, application_key: str
) -> None:
    """Neither a good key nor a bad one; and it is an outage, not a refusal."""
    with away(keys.database, "api_keys"):
        for presented in (application_key, NOBODY):
            with pytest.raises(LedgerError):
                admit(cache, presented)


def test_expiry_needs_no_ledger(cache: KeyCache, keys: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that expires while its answer is fresh, or while the ledger is away, is refused from that moment on."""
    presented = keys.create("application", "brief", actor="test", expires_at_us=now_us() + 600_000_000)
    ends_at_us = admit(cache, presented).expires_at_us
    monkeypatch.setattr(key_cache, "now_us", lambda: ends_at_us - 1)
    assert ends_at_us == cache.recall(presented).expires_at_us
    monkeypatch.setattr(key_cache, "now_us", lambda: ends_at_us)
    with pytest.raises(KeyRefusedError, match="expired"):
        cache.recall(presented)
    with away(keys.database, "api_keys"), pytest.raises(KeyRefusedError, match="expired"):
        cache.ask(presented)


def test_refusals_are_not_remembered(cache: KeyCache, keys: KeyRing, clock: Clock, application_key: str) -> None:
    """However many guesses there are, nothing is kept of them, and who is known stays known."""
    admit(cache, application_key)
    for number in range(50):
        with pytest.raises(KeyRefusedError):
            admit(cache, f"ptk_{number:012x}_" + "A" * 43)

    assert 1 == len(cache._answers)
    assert application_key not in repr(cache._answers)


def test_one_caller_asks_and_the_others_do_not_wait(
    cache: KeyCache, clock: Clock, keys: KeyRing, application_key: str
) -> None:
    """When an answer gets old the first to come is told to ask; who comes before the answer takes the old one."""
    key = admit(cache, application_key)
    clock.now += FRESH_S

    assert [None, key, key] == [cache.recall(application_key) for _ in range(3)]


STEPS = st.lists(
    st.tuples(st.sampled_from(["wait", "ask", "revoke", "away", "back"]), st.floats(0.1, 20)), min_size=5, max_size=40
)


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(steps=STEPS)
def test_nobody_passes_longer_than_promised(
    prepared_file: Path, tmp_path_factory: pytest.TempPathFactory, steps: list
) -> None:
    """Whatever happens in whatever order: a revoked key passes for FRESH_S at most, or AWAY_S around an outage."""
    url = f"sqlite:///{shutil.copy(prepared_file, tmp_path_factory.mktemp('cache'))}"
    keys, clock = KeyRing(url, PEPPER), Clock()
    presented = keys.create("application", "x", actor="test")
    cache = KeyCache(keys.check, clock)
    revoked_at, last_away, outage = None, -1e9, None
    for step, seconds in steps:
        if step == "wait":
            clock.now += seconds
        elif step == "revoke" and outage is None:
            revoke(keys, presented)
            revoked_at = clock.now if revoked_at is None else revoked_at
        elif step == "away" and outage is None:
            outage = away(keys.database, "api_keys")
            outage.__enter__()
        elif step == "back" and outage is not None:
            outage.__exit__(None, None, None)
            outage, last_away = None, clock.now
        elif step == "ask":
            last_away = clock.now if outage else last_away
            passes = _passes(cache, presented)
            since = 0 if revoked_at is None else clock.now - revoked_at
            if passes:
                assert since <= (AWAY_S if clock.now - last_away <= FRESH_S else FRESH_S)
            else:
                assert revoked_at is not None or outage is not None
    keys.close()


def _passes(cache: KeyCache, presented: str) -> bool:
    try:
        admit(cache, presented)
    except (KeyRefusedError, LedgerError):
        return False
    return True
