"""Claims of idempotency keys, on both databases: one maker at a time, and no second response after a whole one."""

import threading
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import text

from rewards.errors import ReusedKeyError
from rewards.keys.ring import KeyRing
from rewards.ledger.idempotency_claims import Claim, Claims
from rewards.ledger.ledger import Ledger
from rewards.store.database import now_us
from tests.rewards.receipts import make_receipt

KEY, OTHER_KEY, REQUEST, OTHER_REQUEST = (sha256(name).hexdigest() for name in (b"key", b"key 2", b"ask", b"ask 2"))


@pytest.fixture
def claims(ledger: Ledger) -> Claims:
    """The claims of an empty ledger."""
    return Claims(ledger.database)


def claim(claims: Claims, response_id: str, key: str = KEY, request: str = REQUEST, **changes: Any) -> Claim:
    """A claim of one application, whenever that is."""
    options = {"application": "app"} | changes
    made = claims.claim(key_sha256=key, request_sha256=request, response_id=response_id, **options)
    assert abs(made.created_at_us - now_us()) < 60_000_000
    return replace(made, created_at_us=0)


def test_first_claim_wins_and_later_ones_learn_of_it(claims: Claims) -> None:
    """The second one with a key is told whose response it stands for; other keys and applications do not matter."""
    assert Claim("r1", 1, 0, is_new=True, receipt_sha256=None) == claim(claims, "r1")
    assert Claim("r1", 1, 0, is_new=False, receipt_sha256=None) == claim(claims, "r2")
    assert claim(claims, "r3", OTHER_KEY).is_new
    assert claim(claims, "r4", application="other").is_new


def test_key_stands_for_one_request(claims: Claims, ledger: Ledger) -> None:
    """Another request under the same key is refused, while the first is made and after, and claims nothing."""
    claim(claims, "r1")
    for _ in range(2):
        with pytest.raises(ReusedKeyError, match="another request"):
            claim(claims, "r2", request=OTHER_REQUEST)
        ledger.append(make_receipt("r1"))
        claims.release(["r1"])


def test_whole_response_is_never_made_again(claims: Claims, ledger: Ledger) -> None:
    """Once its receipt is booked the key stands for it for ever, released, abandoned or not."""
    claim(claims, "r1")
    booked = ledger.append(make_receipt("r1"))
    expected = Claim("r1", 1, 0, is_new=False, receipt_sha256=booked.payload_sha256)

    assert expected == claim(claims, "r2")
    claims.release(["r1"])
    assert expected == claim(claims, "r3")


def test_released_attempt_makes_room_for_the_next(claims: Claims) -> None:
    """An attempt that came to nothing is followed by the next number; releasing it again touches no other."""
    claim(claims, "r1")
    claims.release(["r1"])
    claims.release(["unknown"])
    assert Claim("r2", 2, 0, is_new=True, receipt_sha256=None) == claim(claims, "r2")
    claims.release(["r1"])
    assert Claim("r2", 2, 0, is_new=False, receipt_sha256=None) == claim(claims, "r3")


def test_cut_response_makes_room_for_the_next(claims: Claims, ledger: Ledger) -> None:
    """A response whose receipt says that it was cut does not answer its request; its credit stays."""
    claim(claims, "r1")
    receipt = make_receipt("r1")
    ledger.append(replace(receipt, measurement={**receipt.measurement, "cut": True}))

    assert Claim("r2", 2, 0, is_new=True, receipt_sha256=None) == claim(claims, "r2")
    assert 7 == ledger.tokens()


def test_attempt_that_nobody_ended_stands_for_ever(claims: Claims, ledger: Ledger) -> None:
    """However old it is: its receipt may wait on a disk for as long as the ledger is away, and is then booked."""
    claim(claims, "r1")
    with ledger.database.write() as connection:
        connection.execute(text("UPDATE claims SET created_at_us = 1"))
    found = claims.claim("app", KEY, REQUEST, "r2")
    assert Claim("r1", 1, 1, is_new=False, receipt_sha256=None) == found
    booked = ledger.append(make_receipt("r1"))
    assert booked.payload_sha256 == claims.claim("app", KEY, REQUEST, "r3").receipt_sha256


def test_what_stands_for_a_key_is_found_without_claiming(claims: Claims, ledger: Ledger) -> None:
    """Looking is no claim: nothing before the first, the attempt under way, nothing once it ended, and its receipt."""
    look = partial(claims.find, "app", KEY, REQUEST)
    assert look() is None
    claim(claims, "r1")
    assert ("r1", None) == _told(look())
    claims.release(["r1"])
    assert look() is None
    claim(claims, "r2")
    booked = ledger.append(make_receipt("r2"))
    assert ("r2", booked.payload_sha256) == _told(look())
    with pytest.raises(ReusedKeyError):
        claims.find("app", KEY, OTHER_REQUEST)


def _told(found: Claim | None) -> tuple[str, str | None] | None:
    return None if found is None else (found.response_id, found.receipt_sha256)


def test_claims_are_an_application_s_whichever_key_it_has(claims: Claims, ledger: Ledger, url: str) -> None:
    """What one key of an application claimed stands for its successors, also where each key had claims of its own."""
    keys = KeyRing(url, bytes(32))
    first = keys.create("application", "shop", actor="test")
    second = keys.rotate(first.split("_")[1], actor="test")
    old, new = first.split("_")[1], second.split("_")[1]
    claim(claims, "r1", application=new)
    assert Claim("r1", 1, 0, is_new=False, receipt_sha256=None) == claim(claims, "r2", application=old)
    claims.release(["r1"])
    assert Claim("r3", 2, 0, is_new=True, receipt_sha256=None) == claim(claims, "r3", application=old)
    ledger.append(make_receipt("r1"))
    assert "r1" == claim(claims, "r4", application=old).response_id
    keys.close()


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
