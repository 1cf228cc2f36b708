"""What the mixed load holds against the books, and that it would notice what is wrong in them."""

from contextlib import closing
from pathlib import Path
from random import Random

from rewards.ledger.ledger import Ledger
from tests.benchmarks.mixed_load.callers import Seen
from tests.benchmarks.mixed_load.killing import Family
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

    figures = {figure.name: (figure.value, figure.ok) for figure in figures_of_books(url, seen)}

    assert {
        "mixed_missing": (2, False),
        "mixed_doubled": (1, False),
        "mixed_credit_difference": (0, True),
        "mixed_verify": (0, True),
    } == figures


def test_memory_of_the_last_minute_is_held_against_that_of_the_second():
    """Of ten minutes the second and the last, whatever lay between and while a model was loaded."""
    family = Family(pid=1, samples=[(2.0 * number, 100 if number < 270 else 120) for number in range(300)])
    family.samples[150] = (300.0, 10**6)

    assert 1.2 == family.growth(600)


def test_no_two_requests_are_alike():
    """Else an answer could be another's, and a streamed one asks for its usage, which tells its tokens."""
    chance = Random(0)
    bodies = [good_body("demo", chance) for _ in range(200)]

    assert 200 == len({body["prompt"] for body in bodies})
    assert all(("stream_options" in body) == body["stream"] for body in bodies)
    assert {True, False} == {body["stream"] for body in bodies}
