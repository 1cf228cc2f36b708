"""What stands in front of the service at Serve's own proxy."""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deployment.cluster.core_files import forbid_core_files
from deployment.errors import NotFoundError
from deployment.gateway.shared_health import SharedHealth
from deployment.http.failures import RequestId, answer
from deployment.http.protocol import WholeAnswers

PROXY_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""The variable of the environment by which Serve's proxies, on each node, are told of `proxy_middleware`."""


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


def proxy_middleware() -> list[Middleware]:
    """Called by Serve's proxy when it starts, which `PROXY_VARIABLE` tells it by name."""
    forbid_core_files()
    return [
        Middleware(ProxyRouteGuard),
        Middleware(SharedHealth),
        Middleware(WholeAnswers),
        Middleware(RequestId),
    ]  # the last one is the outermost


PROXY_MIDDLEWARE = f"{proxy_middleware.__module__}.{proxy_middleware.__name__}"
