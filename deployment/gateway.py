"""The ingress as a Ray Serve deployment: a handle to the replicas made to look like the ingress's `Engine`.

The FastAPI app is built where it runs, after the constructor, so nothing of it is ever pickled.
"""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deployment.errors import NotFoundError, UnavailableError
from deployment.failures import RequestId, answer
from deployment.ingress import build_app
from deployment.messages import Event, Failed, Job, ModelCard
from deployment.operator import Books
from deployment.places import ledger_folder
from deployment.protocol import WholeAnswers
from deployment.replays import Replays
from deployment.settings import Settings, pepper_of
from deployment.spooled import spooled_tokens
from deployment.texts import Texts
from rewards import KeyRing, Ledger

__all__ = ["HandleEngine", "Ingress", "proxy_middleware"]

HEALTH_TIMEOUT_S = 5.0
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
        Middleware(WholeAnswers),
        Middleware(RequestId),
    ]  # the last one is the outermost


class HandleEngine:
    """The replicas behind a Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._card: ModelCard | None = None
        # A thread of its own: a controller that hangs must not take those in which keys are checked.
        self._asking = ThreadPoolExecutor(1, "protoken-controller")

    async def describe(self) -> ModelCard:
        """What is served. Asked once: every replica serves the same bundle for as long as it lives."""
        if self._card is None:
            self._card = await self._ask()
        return self._card

    async def check(self) -> None:
        """Return when a replica answers in time.

        Raises:
            UnavailableError: none does.
        """
        await self._ask()

    async def running(self) -> int | None:
        """How many replicas run, as Serve's controller has it; None when it does not answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._asking, self._running)
        except (RayError, RayServeException):
            return None

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response, with what Ray raises told as a `Failed`."""
        events = self._handle.options(stream=True).generate.remote(job)
        try:
            async for event in events:
                yield event
        except BackPressureError:
            yield Failed(429, "every place is taken; try again later", "overloaded", retry_after_s=RETRY_AFTER_S)
        except (RayError, RayServeException):
            yield Failed(503, "the model went away; try again", "engine_unavailable", retry_after_s=5, is_open=True)
        finally:
            events.cancel()

    def _running(self) -> int | None:
        application = serve.status().applications.get(self._handle.app_name)
        found = None if application is None else application.deployments.get(self._handle.deployment_name)
        return None if found is None else found.replica_states.get("RUNNING", 0)

    async def _ask(self) -> ModelCard:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                card: ModelCard = await self._handle.describe.remote()
        except (TimeoutError, RayError, RayServeException) as error:
            raise UnavailableError(
                "no replica of the model answers", code="engine_unavailable", retry_after_s=5
            ) from error
        return card


@serve.ingress()
class Ingress:
    """The HTTP surface. Wrapped as a Serve deployment in `app`."""

    def __init__(self, handle: DeploymentHandle[Any], settings: Settings) -> None:
        self._engine = HandleEngine(handle)
        self._settings = settings
        self._ledger = Ledger(settings.ledger)
        self._keys = KeyRing(settings.ledger, pepper_of(settings.ledger, settings.pepper_file))
        folder = ledger_folder(settings.spool, self._ledger)
        self._spooled = spooled_tokens(folder)  # before anything is generated through this ingress
        self._replays = Replays(folder / "replays", settings.replay_window_s)
        self._texts = Texts(settings.texts, settings.texts_window_s) if settings.texts else None

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
            cors_origins=self._settings.cors_origins,
        )
