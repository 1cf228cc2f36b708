"""What several workers tell of themselves is added up for one observer."""

from deployment.replica.observer import SharedObserver
from tests.deployment.replica.test_worker import Notes


def test_a_worker_that_is_idle_when_another_comes_is_still_counted() -> None:
    """The one that serves is often idle when a round is loaded beside it; it counts until it is closed."""
    notes = Notes()
    shared = SharedObserver(notes)
    serving, scoring = shared.part(), shared.part()
    serving.load(2, 1)
    serving.note_unscored(3, 0.5)
    scoring.load(0, 4)

    assert ((2, 5), 3) == (notes.loads[-1], notes.unscored)


def test_what_a_worker_told_that_has_ended_does_not_count() -> None:
    """Nor what it still tells; with the last one nothing is under way."""
    notes = Notes()
    shared = SharedObserver(notes)
    serving, scoring = shared.part(), shared.part()
    serving.load(2, 1)
    scoring.load(5, 5)
    scoring.close()
    one = notes.loads[-1]
    scoring.load(7, 7)
    late = notes.loads[-1]
    serving.close()

    assert [(2, 1), (2, 1), (0, 0)] == [one, late, notes.loads[-1]]
