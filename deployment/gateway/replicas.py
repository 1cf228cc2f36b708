"""The replicas of one model behind a Serve handle, as the gateway asks them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve._private.constants import RAY_SERVE_USE_GRPC_BY_DEFAULT
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployment.errors import RETRY_AFTER_S, UnavailableError, log_text_of
from deployment.gateway.answer_cache import RecentAnswer
from deployment.gateway.keep_alive import ANSWER_TIMEOUT_S, SILENCE_S, TRIES
from deployment.replica.messages import Event, Failed, Job, ModelCard, Report

_LOG = logging.getLogger(__name__)
FRESH_S = 1.0
LONGEST_S = 15.0
"""How old that answer may be for a new request, while it is asked for anew."""


class HandleEngine:
    """The replicas behind a Serve handle. Whoever asks how they are shares one question, at most one a second.

    Args:
        handle: of their deployment.
        manifest: file of the bundle that they were set to serve, where this machine has it: where no replica answers,
            it is said whether that is gone.
    """

    def __init__(self, handle: DeploymentHandle[Any], manifest: Path | None = None) -> None:
        self._handle = handle
        self._manifest = manifest
        self._report = RecentAnswer(self._ask)
        self._wait_s = 1  # as long as the last replica that was full said; Serve, which may refuse too, knows no time
        # A thread of its own: a controller that hangs must not take those in which keys are checked.
        self._asking = ThreadPoolExecutor(1, "protoken-controller")

    async def describe(self) -> ModelCard:
        """What is served; that a replica answered a short while ago will do."""
        return (await self._report.at_once(FRESH_S, LONGEST_S)).card

    async def check(self) -> ModelCard:
        """What is served, where a replica answers in time, and has what it stands on.

        Raises:
            UnavailableError: none does, or it has not.
        """
        report = await self._report.get(FRESH_S)
        for code, message in report.lost:
            raise UnavailableError(message, code=code, retry_after_s=RETRY_AFTER_S)
        return report.card

    async def count_replicas(self) -> int | None:
        """How many replicas run, as Serve's controller has it; None when it does not answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._asking, self._count_running)
        except (RayError, RayServeException):
            return None

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response, with whatever is raised, or that no replica answers any more, told as a `Failed`."""
        # A handle keeps how it was made to call: elsewhere, by a process that was told otherwise than this one, which
        # alone has the bound for a message that goes with it.
        calling = self._handle.options(stream=True, _by_reference=not RAY_SERVE_USE_GRPC_BY_DEFAULT)
        events = calling.generate.remote(job)
        try:
            tries = 1
            while (event := await self._next(events, tries)) is not None:
                if isinstance(event, Failed) and event.status == 429:
                    self._wait_s = event.retry_after_s or self._wait_s
                yield event
                tries = TRIES
        except BackPressureError:
            why = f"every place is taken; try again in {self._wait_s} s"
            yield Failed(429, why, "overloaded", retry_after_s=self._wait_s)
        except UnavailableError as error:
            yield Failed(
                503, error.message, error.code or "engine_unavailable", retry_after_s=RETRY_AFTER_S, is_open=True
            )
        except Exception as error:  # noqa: BLE001 - Ray's, its transport's or the replica's own: none is known here
            _LOG.warning("a response ends, as its replica does not go on: %s", log_text_of(error))
            yield Failed(
                503, "the model went away; try again", "engine_unavailable", retry_after_s=RETRY_AFTER_S, is_open=True
            )
        finally:
            events.cancel()

    async def _next(self, events: AsyncIterator[Event], tries: int) -> Event | None:
        """The next event, for as long as a replica answers: Serve would wait without end for one that does not start.

        Raises:
            UnavailableError: none answered so many times.
        """
        coming = asyncio.ensure_future(_step(events))
        try:
            await asyncio.wait({coming}, timeout=SILENCE_S)
            while not coming.done():
                asking = asyncio.ensure_future(self._report.get(FRESH_S))
                await asyncio.wait({coming, asking}, return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    asking.cancel()
                elif not coming.done():
                    tries -= asking.exception() is not None
                    if tries == 0:
                        asking.result()
                    await asyncio.wait({coming}, timeout=SILENCE_S)
            return coming.result()
        finally:
            coming.cancel()

    def _count_running(self) -> int | None:
        application = serve.status().applications.get(self._handle.app_name)
        state = None if application is None else application.deployments.get(self._handle.deployment_name)
        return None if state is None else state.replica_states.get("RUNNING", 0)

    async def _ask(self) -> Report:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                report: Report = await self._handle.report.remote()
        except Exception as error:
            raise self._absence() from error
        return report

    def _absence(self) -> UnavailableError:
        """That no replica answers: without its bundle none can start, and none is left to say so."""
        if self._manifest is None or self._manifest.exists():
            return UnavailableError(
                "no replica of the model answers", code="engine_unavailable", retry_after_s=RETRY_AFTER_S
            )
        why = "no replica of the model answers, and the service's bundle is gone"
        return UnavailableError(why, code="bundle_missing", retry_after_s=RETRY_AFTER_S)


async def _step(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)
