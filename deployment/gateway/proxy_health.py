"""`GET /health` at Serve's proxy: however many ask, the service is asked once at a time, and at most once a second.

A crowd of probes would otherwise take the processor from answers, as each went through the proxy to the ingress.
"""

import asyncio
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.gateway.answer_cache import RecentAnswer

SHARED_S = 1.0
"""How old an answer may be, in seconds."""


class SharedHealth:
    """ASGI middleware that gives everybody who asks for `/health` the same recent answer.

    Args:
        app: answers when nobody has for a while.
        shared_s: how old an answer may be, in seconds.
    """

    def __init__(self, app: ASGIApp, shared_s: float = SHARED_S) -> None:
        self._app = app
        self._shared_s = shared_s
        self._recent = RecentAnswer(self._ask)
        self._scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on everything else."""
        if scope["type"] != "http" or scope["path"] != "/health" or scope["method"] not in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        self._scope = {**scope, "method": "GET"}
        for message in await self._recent.get(self._shared_s):
            # Copies: what stands around this writes headers of its own into what it passes on.
            await send({**message, "headers": list(message["headers"])} if "headers" in message else message)

    async def _ask(self) -> Sequence[Message]:
        """The answer to whoever asked last; that he may have gone away meanwhile takes it from nobody else."""
        told: list[Message] = []
        is_read = False

        async def receive() -> Message:
            nonlocal is_read
            if is_read:
                await asyncio.Event().wait()
            is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            told.append(message)

        await self._app(self._scope, receive, send)
        return told
