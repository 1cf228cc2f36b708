"""Claims of idempotency keys, on both databases: one maker at a time, and no second response after a whole one."""

import threading
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from rewards import Ledger
from rewards.claims import Claim, Claims
from rewards.errors import ReusedKeyError
from tests.rewards.receipts import make_receipt

KEY, OTHER_KEY, REQUEST, OTHER_REQUEST = (sha256(name).hexdigest() for name in (b"key", b"key 2", b"ask", b"ask 2"))


@pytest.fixture
def claims(ledger: Ledger) -> Claims:
    """The claims of an empty ledger."""
    return Claims(ledger.database)


def claim(claims: Claims, response_id: str, key: str = KEY, request: str = REQUEST, **changes: Any) -> Claim:
    """A claim of one application, with an hour's patience."""
    options = {"application": "app", "abandoned_after_s": 3600.0} | changes
    return claims.claim(key_sha256=key, request_sha256=request, response_id=response_id, **options)


def test_first_claim_wins_and_later_ones_learn_of_it(claims: Claims) -> None:
    """The second one with a key is told whose response it stands for; other keys and applications do not matter."""
    assert Claim("r1", 1, is_new=True, receipt_sha256=None) == claim(claims, "r1")
    assert Claim("r1", 1, is_new=False, receipt_sha256=None) == claim(claims, "r2")
    assert claim(claims, "r3", OTHER_KEY).is_new
    assert claim(claims, "r4", application="other").is_new


def test_key_stands_for_one_request(claims: Claims, ledger: Ledger) -> None:
    """Another request under the same key is refused, while the first is made and after, and claims nothing."""
    claim(claims, "r1")
    for _ in range(2):
        with pytest.raises(ReusedKeyError, match="another request"):
            claim(claims, "r2", request=OTHER_REQUEST)
        ledger.append(make_receipt("r1"))
        claims.release("r1")


def test_whole_response_is_never_made_again(claims: Claims, ledger: Ledger) -> None:
    """Once its receipt is booked the key stands for it for ever, released, abandoned or not."""
    claim(claims, "r1")
    booked = ledger.append(make_receipt("r1"))
    expected = Claim("r1", 1, is_new=False, receipt_sha256=booked.payload_sha256)

    assert expected == claim(claims, "r2")
    claims.release("r1")
    assert expected == claim(claims, "r3", abandoned_after_s=-10.0)


def test_released_attempt_makes_room_for_the_next(claims: Claims) -> None:
    """An attempt that came to nothing is followed by the next number; releasing it again touches no other."""
    claim(claims, "r1")
    claims.release("r1")
    claims.release("unknown")
    assert Claim("r2", 2, is_new=True, receipt_sha256=None) == claim(claims, "r2")
    claims.release("r1")
    assert Claim("r2", 2, is_new=False, receipt_sha256=None) == claim(claims, "r3")


def test_cut_response_makes_room_for_the_next(claims: Claims, ledger: Ledger) -> None:
    """A response whose receipt says that it was cut does not answer its request; its credit stays."""
    claim(claims, "r1")
    receipt = make_receipt("r1")
    ledger.append(replace(receipt, measurement={**receipt.measurement, "cut": True}))

    assert Claim("r2", 2, is_new=True, receipt_sha256=None) == claim(claims, "r2")
    assert 7 == ledger.tokens()


def test_abandoned_attempt_makes_room_for_the_next(claims: Claims) -> None:
    """Whoever neither booked nor released in time is taken for dead."""
    claim(claims, "r1")
    assert not claim(claims, "r2", abandoned_after_s=60.0).is_new
    assert Claim("r3", 2, is_new=True, receipt_sha256=None) == claim(claims, "r3", abandoned_after_s=-10.0)


def test_of_many_racing_claims_one_wins(url: str) -> None:
    """Sixteen threads with connections of their own claim one key at once: one is to make the response."""
    start = threading.Barrier(16)
    won: list[Claim] = []

    def race(number: int) -> None:
        ledger = Ledger(url)
        start.wait()
        won.append(claim(Claims(ledger.database), f"r{number}"))
        ledger.close()

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (16, 1) == (len(won), sum(each.is_new for each in won))
    assert 1 == len({each.response_id for each in won})
