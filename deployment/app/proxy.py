"""What stands in front of the service at Serve's own proxy."""

import logging

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.cluster.core_files import forbid_core_files
from deployment.errors import RETRY_AFTER_S, NotFoundError, UnavailableError
from deployment.gateway.proxy_health import SharedHealth
from deployment.http.exception_handlers import RequestId, answer
from deployment.http.protocol import WholeAnswers

PROXY_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""The variable of the environment by which Serve's proxies, on each node, are told of `proxy_middleware`."""
_LOG = logging.getLogger(__name__)


class ProxyRouteGuard:
    """ASGI middleware for Serve's proxy, whose own `/-/routes` and `/-/healthz` would answer anybody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on everything but the proxy's own routes, which do not exist for anybody."""
        if scope["type"] == "http" and scope["path"].startswith("/-/"):
            await answer(NotFoundError(f"there is no {scope['path']} here", code="unknown_route"))(scope, receive, send)
            return
        await self._app(scope, receive, send)


class UnansweredRequests:
    """ASGI middleware for Serve's proxy, which says nothing, or a line of text, where the ingress died or is none.

    Our own refusals are JSON, and pages HTML: a refusal in plain text is Serve's. An answer that has begun stays as it
    is, cut.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is answered; else refuse with 503 and when to come back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def pass_on(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_plain = Headers(scope=message).get("content-type", "").startswith("text/plain")
                is_answered = message["status"] < 400 or not is_plain
            if is_answered:
                await send(message)

        try:
            await self._app(scope, receive, pass_on)
        except Exception:
            if is_answered:
                raise
            _LOG.exception("Serve's proxy failed to pass on a request")
        if not is_answered:
            why = "the service that took this request is gone, or is none yet; try again"
            refusal = UnavailableError(why, code="service_unavailable", retry_after_s=RETRY_AFTER_S)
            await answer(refusal)(scope, receive, send)


def proxy_middleware() -> list[Middleware]:
    """Called by Serve's proxy when it starts, which `PROXY_VARIABLE` tells it by name."""
    forbid_core_files()
    return [
        Middleware(UnansweredRequests),
        Middleware(ProxyRouteGuard),
        Middleware(SharedHealth),
        Middleware(WholeAnswers),
        Middleware(RequestId),
    ]  # the last one is the outermost


PROXY_MIDDLEWARE = f"{proxy_middleware.__module__}.{proxy_middleware.__name__}"
