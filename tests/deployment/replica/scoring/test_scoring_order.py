"""Whose score is next: who was scored least, among those for which an application waits, and then among the others."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.teacher_forcing import generation_of
from deployment.replica.scoring.scoring_order import ScoringOrder, ScoringTask


def task(application: str, *, tokens: int = 4, urgent: bool = True, weight: int = 1) -> ScoringTask:
    """A response of so many tokens."""
    generation = generation_of([1] * (tokens - 1), [2])
    return ScoringTask(generation, False, urgent, lambda _: None, lambda: None, application, weight)


def taken(order: ScoringOrder, *, urgent: bool = True) -> list[str]:
    """Whose turn it was, until nobody waits any more."""
    found = []
    while each := order.take(urgent=urgent):
        found.append(each.application)
    return found


@pytest.mark.parametrize("urgent", [True, False])
def test_a_flood_is_served_between_the_others(urgent: bool) -> None:
    """Five of one application, then two of another: these are second and fourth, however late they came."""
    order = ScoringOrder()
    for application in ("flood", "flood", "flood", "flood", "flood", "other", "other"):
        order.put(task(application, urgent=urgent))

    assert ["flood", "other", "flood", "other", "flood", "flood", "flood"] == taken(order, urgent=urgent)
    assert 0 == len(order)


def test_who_weighs_more_is_scored_more_often() -> None:
    """A key of weight 2 has two scores where another has one."""
    order = ScoringOrder()
    for _ in range(4):
        order.put(task("two", weight=2))
        order.put(task("one"))
    first = taken(order)[:6]

    assert (4, 2) == (first.count("two"), first.count("one"))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(2, 50), st.booleans()), max_size=30))
def test_every_task_is_taken_once_and_of_one_application_in_the_order_it_came(
    asked: Sequence[tuple[str, int, bool]],
) -> None:
    """None is lost or doubled; those for which an application waits are apart from the others."""
    order = ScoringOrder()
    tasks = [task(application, tokens=tokens, urgent=urgent) for application, tokens, urgent in asked]
    for each in tasks:
        order.put(each)
    for urgent in (True, False):
        found = []
        while each_taken := order.take(urgent=urgent):
            found.append(each_taken)
        for application in "abc":
            wanted = [each for each in tasks if (each.application, each.urgent) == (application, urgent)]
            assert list(map(id, wanted)) == [id(each) for each in found if each.application == application]
    assert 0 == len(order)
