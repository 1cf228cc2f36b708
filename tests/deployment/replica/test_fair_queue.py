"""Who waits for a model is served by what applications had before, and places to wait in are not one application's."""

import math
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.replica.fair_queue import LONGEST_WAIT_S, FairQueue, has_room
from tests.deployment.outages import Clock

APPLICATIONS = st.sampled_from("abcd")
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), APPLICATIONS, st.integers(0, 50)),
        st.tuples(st.just("take"), st.none(), st.none()),
        st.tuples(st.just("charge"), APPLICATIONS, st.integers(1, 50)),
        st.tuples(st.just("discard"), st.none(), st.integers(0, 30)),
    ),
    max_size=120,
)


@given(MOVES)
def test_queue_loses_nobody_and_keeps_each_applications_order(moves: list[tuple[str, str, int]]) -> None:
    """Against plain lists: who is put is taken or discarded once, and of one application whoever came first is next."""
    queue: FairQueue[int] = FairQueue()
    waiting: dict[str, list[int]] = defaultdict(list)
    for number, (move, application, amount) in enumerate(moves):
        everybody = {each for line in waiting.values() for each in line}
        if move == "put":
            queue.put(application, str(number), number, cost=amount)
            waiting[application].append(number)
        elif move == "take" and everybody:
            taken = queue.take()
            assert taken in {line.pop(0) for line in waiting.values() if line and line[0] == taken}
        elif move == "take":
            with pytest.raises(ValueError, match="empty"):
                queue.take()
        elif move == "charge":
            queue.charge(application, amount)
        else:
            assert (amount if amount in everybody else None) == queue.discard(str(amount))
            waiting = defaultdict(list, {name: [n for n in line if n != amount] for name, line in waiting.items()})
        assert sorted(queue) == sorted(each for line in waiting.values() for each in line)
        assert {name: len(line) for name, line in waiting.items()} == {name: queue.count(name) for name in waiting}


@given(
    st.lists(st.tuples(APPLICATIONS, st.integers(0, 40), st.integers(0, 60)), min_size=1, max_size=80),
    st.fixed_dictionaries({name: st.integers(1, 5) for name in "abcd"}),
)
def test_no_application_waits_while_one_that_was_served_more_is_taken(
    jobs: list[tuple[str, int, int]], weights: dict[str, int]
) -> None:
    """Where all wait from the start, the next is always of an application with the least tokens for its weight."""
    queue: FairQueue[tuple[str, int, int]] = FairQueue()
    for number, job in enumerate(jobs):
        queue.put(job[0], str(number), job, cost=job[1], weight=weights[job[0]])
    served = dict.fromkeys("abcd", 0.0)
    while queue:
        waiting = {application for application, _, _ in queue}
        application, prompt, generated = queue.take()
        assert math.isclose(served[application], min(served[name] for name in waiting), abs_tol=1e-9)
        queue.charge(application, generated, weights[application])
        served[application] += (prompt + generated) / weights[application]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), min_size=60, max_size=60),
    st.integers(1, 8),
    st.integers(1, 5),
)
def test_two_that_always_wait_get_tokens_by_their_weights(
    sizes: list[tuple[int, int]], places: int, weight: int
) -> None:
    """At no time is one ahead by more than what runs at once, and one job (Sheng et al., theorem 4.4)."""
    weights = {"a": 1, "b": weight}
    queue: FairQueue[list[Any]] = FairQueue()
    for number, (prompt, generated) in enumerate(sizes):
        for name, own in weights.items():
            queue.put(name, f"{name}{number}", [name, prompt, generated], cost=prompt, weight=own)
    most = max(map(sum, sizes))
    served = dict.fromkeys(weights, 0.0)
    running: list[list[Any]] = []
    while queue.count("a") and queue.count("b"):
        while len(running) < places and queue:
            running.append(queue.take())
            name, prompt, _ = running[-1]
            served[name] += prompt / weights[name]
        for job in running:
            queue.charge(job[0], 1, weights[job[0]])
            served[job[0]] += 1 / weights[job[0]]
            job[2] -= 1
        running = [job for job in running if job[2]]
        assert abs(served["a"] - served["b"]) <= (places + 1) * most


def test_an_idle_application_saves_nothing_up() -> None:
    """Who comes late is served in turn with who was there, and not before for as long as he asked for nothing."""
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.put("flood", f"early {number}", "flood", cost=10)
    for _ in range(50):
        queue.take()
    for number in range(50):
        queue.put("late", f"late {number}", "late", cost=10)

    assert {"flood": 10, "late": 10} == Counter(queue.take() for _ in range(20))


def test_a_flood_does_not_keep_another_waiting() -> None:
    """Behind any number of one application's jobs, another's is next but one."""
    queue: FairQueue[str] = FairQueue()
    for number in range(1000):
        queue.put("flood", f"flood {number}", "flood", cost=5)
    queue.take()
    queue.put("small", "small", "small", cost=5)

    assert "small" in {queue.take(), queue.take()}


def test_counters_of_who_is_gone_are_forgotten() -> None:
    """A queue that has seen many applications remembers those that it must: who waits, or stands above the floor."""
    queue: FairQueue[int] = FairQueue()
    for number in range(1000):
        queue.put(f"application {number}", str(number), number, cost=1)
        queue.take()

    assert len(queue._served) <= 2


@given(st.integers(0, 200), st.lists(st.integers(0, 5), max_size=600))
def test_places_are_left_for_who_has_none(places: int, asking: list[int]) -> None:
    """However many flood: while one may wait at all and there are three places, an application with none finds one."""
    own = Counter[int]()
    for application in asking:
        if has_room(own=own[application], waiting=own.total(), places=places):
            own[application] += 1
    assert own.total() <= places
    if places >= 3 and len(own) <= 1:
        assert has_room(own=0, waiting=own.total(), places=places)


def test_one_application_alone_gets_two_thirds_of_the_places() -> None:
    """And what is left then is open to a second one, and a third."""
    own = Counter[str]()
    for application in "a" * 100 + "b" * 100 + "c" * 100:
        if has_room(own=own[application], waiting=own.total(), places=64):
            own[application] += 1

    assert {"a": 43, "b": 14, "c": 5} == own


def test_time_to_wait_is_what_waits_by_the_pace_of_late() -> None:
    """Ten wait and one ends every two seconds: twenty seconds; and an idle hour changes nothing of that pace."""
    clock = Clock()
    queue: FairQueue[int] = FairQueue(clock)
    for number in range(40):
        queue.put("a", str(number), number, cost=1)
    for _ in range(30):
        clock.now += 2
        queue.note_ends(1)
        queue.take()
    assert 20 == queue.wait_s()

    queue.clear()
    clock.now += 3600
    queue.note_ends(7)
    for number in range(5):
        queue.put("a", f"again {number}", number, cost=1)
    assert 10 == queue.wait_s()


def test_time_to_wait_is_bounded_and_grows_while_nothing_ends() -> None:
    """Before anything ended one knows only how long one has waited; nobody is told more than a minute."""
    clock = Clock()
    queue: FairQueue[int] = FairQueue(clock)
    assert 1 == queue.wait_s()
    for number in range(4):
        queue.put("a", str(number), number, cost=1)
    assert 1 == queue.wait_s()
    clock.now += 3
    assert 12 == queue.wait_s()
    clock.now += 100
    assert LONGEST_WAIT_S == queue.wait_s()
