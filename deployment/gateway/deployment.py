"""The ingress as a Ray Serve deployment: a handle to the replicas made to look like the ingress's `Engine`.

The FastAPI app is built where it runs, after the constructor, so nothing of it is ever pickled.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deployment.api import Books
from deployment.cluster.ports import listen_on_own_address
from deployment.errors import NotFoundError, UnavailableError
from deployment.gateway.recent import Recent
from deployment.gateway.routes import build_app
from deployment.gateway.shared_health import SharedHealth
from deployment.health import parts
from deployment.health.places import ledger_folder
from deployment.health.watch import Watch
from deployment.http.failures import RequestId, answer
from deployment.http.protocol import WholeAnswers
from deployment.kept.replays import Replays
from deployment.kept.texts import Texts
from deployment.replica.messages import Event, Failed, Job, ModelCard, Report
from deployment.settings import Settings, pepper_of, pepper_path
from deployment.spool.unbooked import spooled_tokens
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealing import require_known
from rewards.signing.keys import VerifyKey
from rewards.store.continuity import Continuity

__all__ = ["HandleEngine", "Ingress", "proxy_middleware"]

ANSWER_TIMEOUT_S = 4.0
"""How long a replica may take to say how it is; whoever waits for one that does not is told within five seconds."""
SILENCE_S = 1.0
"""How long a response may be silent before its replica is asked how it is."""
TRIES = 3
"""How often a replica that has begun a response may fail to say so; one that has not begun has one chance."""
FRESH_S = 1.0
LONGEST_S = 15.0
"""How old that answer may be for a new request, while it is asked for anew."""
RETRY_AFTER_S = 1


class ProxyRoutesClosed:
    """ASGI middleware for Serve's proxy, whose own `/-/routes` and `/-/healthz` would answer anybody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on everything but the proxy's own routes, which do not exist for anybody."""
        if scope["type"] == "http" and scope["path"].startswith("/-/"):
            await answer(NotFoundError(f"there is no {scope['path']} here", code="unknown_route"))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def proxy_middleware() -> list[Middleware]:
    """Called by Serve's proxy when it starts, which `app` tells it by name."""
    return [
        Middleware(ProxyRoutesClosed),
        Middleware(SharedHealth),
        Middleware(WholeAnswers),
        Middleware(RequestId),
    ]  # the last one is the outermost


class HandleEngine:
    """The replicas behind a Serve handle. Whoever asks how they are shares one question, at most one a second."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._report = Recent(self._ask)
        # A thread of its own: a controller that hangs must not take those in which keys are checked.
        self._asking = ThreadPoolExecutor(1, "protoken-controller")

    async def describe(self) -> ModelCard:
        """What is served; that a replica answered a short while ago will do."""
        return (await self._report.at_once(FRESH_S, LONGEST_S)).card

    async def check(self) -> None:
        """Return when a replica answers in time, and has what it stands on.

        Raises:
            UnavailableError: none does, or it has not.
        """
        for code, message in (await self._report.get(FRESH_S)).lost:
            raise UnavailableError(message, code=code, retry_after_s=5)

    async def running(self) -> int | None:
        """How many replicas run, as Serve's controller has it; None when it does not answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._asking, self._running)
        except (RayError, RayServeException):
            return None

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response, with what Ray raises, or that no replica answers any more, told as a `Failed`."""
        events = self._handle.options(stream=True).generate.remote(job)
        try:
            tries = 1
            while (event := await self._next(events, tries)) is not None:
                yield event
                tries = TRIES
        except BackPressureError:
            yield Failed(429, "every place is taken; try again later", "overloaded", retry_after_s=RETRY_AFTER_S)
        except UnavailableError as error:
            yield Failed(503, error.message, "engine_unavailable", retry_after_s=5, is_open=True)
        except (RayError, RayServeException):
            yield Failed(503, "the model went away; try again", "engine_unavailable", retry_after_s=5, is_open=True)
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

    def _running(self) -> int | None:
        application = serve.status().applications.get(self._handle.app_name)
        found = None if application is None else application.deployments.get(self._handle.deployment_name)
        return None if found is None else found.replica_states.get("RUNNING", 0)

    async def _ask(self) -> Report:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                report: Report = await self._handle.report.remote()
        except (TimeoutError, RayError, RayServeException) as error:
            raise UnavailableError(
                "no replica of the model answers", code="engine_unavailable", retry_after_s=5
            ) from error
        return report


async def _step(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


@serve.ingress()
class Ingress:
    """The HTTP surface. Wrapped as a Serve deployment in `app`."""

    def __init__(self, handle: DeploymentHandle[Any], settings: Settings) -> None:
        listen_on_own_address()
        self._engine = HandleEngine(handle)
        self._settings = settings
        self._ledger = Ledger(settings.ledger)
        self._keys = KeyRing(settings.ledger, pepper_of(settings.ledger, settings.pepper_file))
        folder = ledger_folder(settings.spool, self._ledger)
        self._spooled = spooled_tokens(folder)  # before anything is generated through this ingress
        self._replays = Replays(folder / "replays", settings.replay_window_s)
        self._texts = Texts(settings.texts, settings.texts_window_s) if settings.texts else None
        self._parts = _parts(settings, self._ledger, folder)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve in the process where the app runs."""
        return build_app(
            self._engine,
            Books(self._ledger, self._keys, self._settings.signing_key, self._settings.policy),
            self._replays,
            default_max_tokens=self._settings.default_max_tokens,
            max_tokens_cap=self._settings.max_tokens_cap,
            keep_alive_s=self._settings.keep_alive_s,
            texts=self._texts,
            spooled=self._spooled,
            watch=Watch(self._parts),
            cors_origins=self._settings.cors_origins,
        )


def _parts(settings: Settings, ledger: Ledger, spool: Path) -> dict[str, parts.Check]:
    """What this ingress stands on, as it is now; a bundle or signing key that this machine does not have is none."""
    found = {
        "ledger": Continuity(ledger.database).check,
        "spool": parts.folder("spool", spool, spool / "replays"),
        "pepper": parts.secret("pepper", pepper_path(settings.ledger, settings.pepper_file)),
    }
    if settings.texts is not None:
        found["texts"] = parts.folder("texts", settings.texts)
    if settings.signing_key.exists():
        found["signing_key"] = parts.signing_key("signing_key", settings.signing_key, partial(_require_known, ledger))
    if settings.bundle.exists():
        found["bundle"] = parts.bundle("bundle", settings.bundle)
    return found


def _require_known(ledger: Ledger, key: VerifyKey) -> None:
    with ledger.database.read() as connection:
        require_known(connection, key)
