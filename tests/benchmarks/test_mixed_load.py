"""What the mixed load holds against the books, and that it would notice what is wrong in them."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

from rewards.ledger.ledger import Ledger
from tests.benchmarks.mixed_load.callers import Seen
from tests.benchmarks.mixed_load.killing import Family
from tests.benchmarks.mixed_load.publishing import SWITCH_S, Publishing
from tests.benchmarks.mixed_load.requests import good_body
from tests.benchmarks.mixed_load.verdict import figures_of_books
from tests.rewards.receipts import MEMBERS, make_receipt


def test_a_response_that_was_seen_whole_and_is_not_booked_is_told(tmp_path: Path):
    """One that is not there, one of other tokens than were told, and a key that was answered with two responses."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    with closing(Ledger(url)) as ledger:
        ledger.register("demo", MEMBERS)
        for response_id in ("right", "other"):
            ledger.append(make_receipt(response_id, 10))
    seen = Seen(whole={"right": 10, "other": 11, "lost": 10}, doubled=["right and wrong"])

    publishing = Publishing((make_receipt("any").model_sha256, "b" * 64))
    figures = {figure.name: (figure.value, figure.ok) for figure in figures_of_books(url, seen, publishing)}

    assert {
        "mixed_missing": (2, False),
        "mixed_doubled": (1, False),
        "mixed_credit_difference": (0, True),
        "mixed_misnamed_rounds": (0, True),
        "mixed_failed_changes": (0, True),
        "mixed_verify": (0, True),
    } == figures


def test_memory_of_the_last_minute_is_held_against_that_of_the_second():
    """Of ten minutes the second and the last, whatever lay between and while a model was loaded."""
    family = Family(pid=1, samples=[(2.0 * number, 100 if number < 270 else 120) for number in range(300)])
    family.samples[150] = (300.0, 10**6)

    assert 1.2 == family.growth(600)


def test_a_receipt_of_a_round_that_answered_nobody_then_is_told(tmp_path: Path):
    """Before the publish, long after it and long after the rollback there is one round only; about each, two may be."""
    first, second, second_us = "a" * 64, "b" * 64, 1_000_000
    publishing = Publishing(
        (first, second), [(1000 * second_us, 1010 * second_us), (2000 * second_us, 2010 * second_us)]
    )
    long = 2 * SWITCH_S
    moments = {"before": 1000 - long, "about": 1001, "after": 1010 + long, "back": 2001, "long": 2010 + long}
    with closing(Ledger(_new_ledger(tmp_path))) as ledger:
        ledger.register("demo", MEMBERS)
        for when, at_s in moments.items():
            for name in (first, second):
                receipt = make_receipt(f"{when} {name[0]}", 1)
                ledger.append(replace(receipt, model_sha256=name, created_at_us=int(at_s * second_us)))
        receipts = ledger.receipts_after(0)

    assert ["before b", "after a", "long b"] == publishing.misnamed(receipts)
    assert 5 == publishing.of_second(receipts)


def _new_ledger(folder: Path) -> str:
    url = f"sqlite:///{folder}/ledger.db"
    Ledger.prepare(url)
    return url


def test_no_two_requests_are_alike():
    """Else an answer could be another's, and a streamed one asks for its usage, which tells its tokens."""
    chance = Random(0)
    bodies = [good_body("demo", chance) for _ in range(200)]

    assert 200 == len({body["prompt"] for body in bodies})
    assert all(("stream_options" in body) == body["stream"] for body in bodies)
    assert {True, False} == {body["stream"] for body in bodies}
