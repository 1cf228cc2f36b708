"""What the ingress asks of Serve's controller and of replicas, which may hang."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorUnavailableError
from ray.serve._private.handle_options import DynamicHandleOptions
from ray.serve.exceptions import BackPressureError

from deployment.errors import UnavailableError
from deployment.gateway import replicas
from deployment.gateway.answer_cache import RecentAnswer
from deployment.gateway.replicas import HandleEngine
from deployment.replica.messages import Delta, Failed, Job, Report
from tests.deployment.gateway.engines import CARD
from tests.waiting import PATIENCE_S

HANDLE: Any = SimpleNamespace(app_name="protoken", deployment_name="replica")


@pytest.mark.long
def test_a_controller_that_hangs_takes_one_thread_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is asked how many replicas run: keys are checked in the threads that would be gone."""
    let_go, asked = threading.Event(), []

    def hanging(_engine: HandleEngine) -> None:
        asked.append(threading.current_thread())
        assert let_go.wait(PATIENCE_S)

    async def ask_again_and_again() -> str:
        for _ in range(50):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await engine.count_replicas()
        return await asyncio.to_thread(lambda: "a key is checked")

    engine = HandleEngine(HANDLE)
    monkeypatch.setattr(HandleEngine, "_count_running", hanging)
    try:
        assert "a key is checked" == asyncio.run(asyncio.wait_for(ask_again_and_again(), 20))
        assert 1 == len(asked)
    finally:
        let_go.set()


class FakeMethod:
    """A method of a deployment handle: what it does is what it was given."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self.remote = act

    def options(self, **_options: Any) -> "FakeMethod":
        return self


class Events:
    """A response's events as Ray gives them: they come, or do not, and can be called off."""

    def __init__(self, *events: Any, then_hangs: bool = False) -> None:
        self._events = list(events)
        self._then_hangs = then_hangs
        self.cancelled = False

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> Any:
        if self._events:
            return self._events.pop(0)
        if self._then_hangs:
            await asyncio.sleep(3600)
        raise StopAsyncIteration

    def cancel(self) -> None:
        self.cancelled = True


class Busy(Events):
    """What Serve gives where its own queue is full."""

    async def __anext__(self) -> Any:
        raise BackPressureError(65, 64)


def engine_of(report: Callable[[], Any], events: Events) -> HandleEngine:
    """An engine over a handle whose replica says and does that."""
    generate = SimpleNamespace(generate=FakeMethod(lambda _job: events))
    return HandleEngine(SimpleNamespace(report=FakeMethod(report), options=lambda **_: generate))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_told", [True, False])
def test_pieces_of_text_come_as_the_ingress_is_told(monkeypatch: pytest.MonkeyPatch, *, is_told: bool) -> None:
    """By gRPC where its own environment says so, whoever made the handle: as Ray's objects they cost twice as much."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(replicas, "RAY_SERVE_USE_GRPC_BY_DEFAULT", is_told)

    def options(**each: Any) -> SimpleNamespace:
        given.update(each)
        return SimpleNamespace(generate=FakeMethod(lambda _job: Events()))

    asyncio.run(all_of(HandleEngine(SimpleNamespace(options=options))))  # type: ignore[arg-type]

    for made in (True, False):
        called = DynamicHandleOptions(_by_reference=made).copy_and_update(**given)
        assert (called.stream, called._by_reference) == (True, not is_told)


async def never() -> None:
    """A replica that does not start, or does not answer any more."""
    await asyncio.sleep(3600)


async def all_of(engine: HandleEngine) -> list[Any]:
    return [event async for event in engine.generate(cast("Job", None))]


def test_who_is_turned_away_by_serve_is_told_what_a_full_replica_said() -> None:
    """Serve has no time to tell; the replicas have, and the last that was full is believed."""
    full = Failed(429, "full", "overloaded", retry_after_s=7)
    answers = [Busy(), Events(full), Busy()]
    generate = SimpleNamespace(generate=FakeMethod(lambda _job: answers.pop(0)))
    engine = HandleEngine(SimpleNamespace(report=FakeMethod(never), options=lambda **_: generate))  # type: ignore[arg-type]
    told = [asyncio.run(all_of(engine))[0] for _ in range(3)]

    assert [1, 7, 7] == [failed.retry_after_s for failed in told]
    assert {(429, "overloaded")} == {(failed.status, failed.code) for failed in told}


class Broken(Events):
    """A response whose replica, or the way to it, fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def __anext__(self) -> Any:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        ActorUnavailableError("Actor is unavailable.", b"0" * 16),
        AioRpcError(StatusCode.INTERNAL, Metadata(), Metadata(), details="Received RST_STREAM"),
        ValueError("what the replica itself raised"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_replica_or_the_way_to_it_raises_ends_its_response_alone(error: Exception) -> None:
    """By objects of Ray's every failure was one of its own; by gRPC it may be the connection's, or what was raised."""
    events = Broken(error)
    (told,) = asyncio.run(all_of(engine_of(never, events)))

    assert (503, "engine_unavailable") == (told.status, told.code)
    assert "what the replica" not in told.message
    assert events.cancelled


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience than in the service."""
    monkeypatch.setattr(replicas, "ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(replicas, "SILENCE_S", 0.05)
    monkeypatch.setattr(replicas, "FRESH_S", 0.05)


@pytest.mark.usefixtures("hurried")
class TestNoReplica:
    """While no replica answers, nobody waits without end."""

    def test_without_its_bundle_that_is_said(self, tmp_path: Path) -> None:
        """None can start then, and none is left to say so; while the bundle is there, it is not the reason."""
        manifest = tmp_path / "consortium.json"
        generate = SimpleNamespace(generate=FakeMethod(lambda _job: Events()))
        handle: Any = SimpleNamespace(report=FakeMethod(never), options=lambda **_: generate)
        told = []
        for there in (True, False):
            manifest.touch() if there else manifest.unlink()
            with pytest.raises(UnavailableError) as caught:
                asyncio.run(HandleEngine(handle, manifest).check())
            told.append((caught.value.code, caught.value.message))

        assert [
            ("engine_unavailable", "no replica of the model answers"),
            ("bundle_missing", "no replica of the model answers, and the service's bundle is gone"),
        ] == told

    def test_response_that_does_not_begin_ends(self) -> None:
        """Serve would queue the request until a replica starts; it is told that none answers, and called off."""
        events = Events(then_hangs=True)
        (told,) = asyncio.run(asyncio.wait_for(all_of(engine_of(never, events)), 5))

        assert (503, "engine_unavailable") == (told.status, told.code)
        assert events.cancelled

    @pytest.mark.long
    def test_response_that_stops_in_its_middle_ends(self) -> None:
        """A replica that fell silent and does not say how it is any more ends its response."""
        events = Events(Delta("a"), then_hangs=True)
        first, last = asyncio.run(asyncio.wait_for(all_of(engine_of(never, events)), 5))

        assert (Delta("a"), 503) == (first, last.status)

    @pytest.mark.long
    def test_slow_response_of_a_replica_that_answers_is_waited_for(self) -> None:
        """A long prompt may take a minute before its first token."""

        async def ask() -> list[Any]:
            async def report() -> Report:
                return Report(CARD)

            class Slow(Events):
                async def __anext__(self) -> Any:
                    await asyncio.sleep(0.5)
                    return await super().__anext__()

            return await all_of(engine_of(report, Slow(Delta("a"))))

        assert [Delta("a")] == asyncio.run(asyncio.wait_for(ask(), 10))

    def test_models_and_health_are_refused(self) -> None:
        """Neither is told of a replica that was there once."""

        async def ask() -> None:
            engine = engine_of(never, Events())
            for act in (engine.describe, engine.check):
                with pytest.raises(UnavailableError):
                    await act()

        asyncio.run(asyncio.wait_for(ask(), 5))

    def test_what_a_replica_lost_is_told_by_its_code(self) -> None:
        """Its spool may lie on another machine than the ingress looks at."""

        async def ask() -> None:
            async def report() -> Report:
                return Report(CARD, (("spool_missing", "the service's spool is gone"),))

            await engine_of(report, Events()).check()

        with pytest.raises(UnavailableError) as raised:
            asyncio.run(ask())
        assert "spool_missing" == raised.value.code


class TestOneQuestion:
    """However many ask how the replicas are, these are asked once a second."""

    def test_three_hundred_callers_ask_once(self) -> None:
        """Whoever comes meanwhile shares the question, and who comes soon after its answer."""
        asked = []

        async def ask() -> None:
            async def report() -> Report:
                asked.append(1)
                await asyncio.sleep(0.05)
                return Report(CARD)

            engine = engine_of(report, Events())
            await asyncio.gather(*(engine.check() for _ in range(300)))
            await engine.check()

        asyncio.run(ask())
        assert 1 == len(asked)

    def test_caller_who_leaves_takes_the_answer_from_nobody(self) -> None:
        """One is cancelled while both wait."""

        async def ask() -> str:
            async def report() -> Report:
                await asyncio.sleep(0.1)
                return Report(CARD)

            engine = engine_of(report, Events())
            leaves, stays = asyncio.ensure_future(engine.check()), asyncio.ensure_future(engine.describe())
            await asyncio.sleep(0.02)
            leaves.cancel()
            return (await stays).name

        assert CARD.name == asyncio.run(ask())

    def test_it_is_asked_in_nobodys_name(self) -> None:
        """Serve ends what was asked within a request when its caller goes away: the others would lose the answer."""
        request = ContextVar("request", default="none")

        async def ask() -> str:
            return request.get()

        async def want() -> str:
            request.set("the first caller's")
            return await RecentAnswer(ask).get(1)

        assert "none" == asyncio.run(want())

    def test_old_answer_does_while_a_new_one_is_asked_for(self) -> None:
        """Requests do not wait for a replica that is busy; that it does not answer shows soon enough."""
        now, asked = [0.0], []

        async def ask() -> str:
            asked.append(1)
            if len(asked) > 1:
                await asyncio.sleep(3600)
            return "answer"

        async def want() -> list[str]:
            recent = RecentAnswer(ask, lambda: now[0])
            first = await recent.at_once(1, 15)
            now[0] = 10.0
            second = await asyncio.wait_for(recent.at_once(1, 15), 1)
            now[0] = 20.0
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(recent.at_once(1, 15), 0.05)
            return [first, second]

        assert ["answer", "answer"] == asyncio.run(want())
        assert 2 == len(asked)
