"""The service's whole HTTP surface in one FastAPI app: the gateway's routes, the operator API and the console.

The app is built where it runs and is never pickled. What it needs of a replica is the `Engine` protocol; Ray stands
behind it in the service (`ingress`), a plain class in tests.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.middleware import Middleware

from deployment import api
from deployment.access.audit_trail import Calls
from deployment.access.gate import BodyLimit, Gate
from deployment.access.limits import Limits
from deployment.app.docs import add_docs
from deployment.app.openapi import TITLE, document
from deployment.books.books import Books
from deployment.console.app import build_console
from deployment.console.gate import PREFIX
from deployment.gateway import routes
from deployment.gateway.idempotency import Idempotency
from deployment.gateway.request_handling import Answers, Engine
from deployment.gateway.service import Service
from deployment.health.faults import Watch
from deployment.http.exception_handlers import LastResort, RequestId, handle_failures
from deployment.http.protocol import CrossOrigin, Heads, JsonBodies
from deployment.retention.replays import Replays
from deployment.retention.texts import Texts
from rewards.ledger.idempotency_claims import Claims


def build_app(
    engine: Engine,
    books: Books,
    replays: Replays,
    *,
    default_max_tokens: int,
    max_tokens_cap: int | None = None,
    texts: Texts | None = None,
    spooled: Mapping[str, Mapping[str, int]] | None = None,
    watch: Watch | None = None,
    cors_origins: Sequence[str] = (),
    keep_alive_s: float = 0.0,
) -> FastAPI:
    """The service's whole HTTP surface.

    Args:
        engine: makes the responses.
        books: the ledger, where receipts are read and idempotency keys are claimed, and who may call.
        replays: where the texts are kept that may be asked for again.
        default_max_tokens: the most tokens of a request that does not say.
        max_tokens_cap: the most tokens a request may ask for; None leaves the model's context as the only cap.
        texts: where finished texts are kept for the console; None keeps none.
        spooled: what waits for the ledger, as `spooled_tokens` tells it.
        watch: looks at what the service stands on; None looks at nothing.
        cors_origins: whose pages may call the API from a browser.
        keep_alive_s: after how many seconds without an event a stream sends a comment; 0 sends none.
    """
    watch = watch or Watch({})
    limits, calls = Limits(books.ledger, spooled=spooled), Calls(books.keys.database)
    gate = Middleware(Gate, keys=books.keys, calls=calls, limits=limits, watch=watch)
    around = _middleware(gate, cors_origins)
    app = FastAPI(title=TITLE, lifespan=partial(_close_calls, calls), docs_url=None, redoc_url=None, middleware=around)
    idempotency = Idempotency(Claims(books.ledger.database), replays)
    answers = Answers(engine, limits, idempotency, default_max_tokens, texts, keep_alive_s)
    app.state.service = Service(engine, answers, books.ledger, watch, max_tokens_cap, int(time.time()))
    app.state.books, app.state.calls = books, calls
    app.include_router(routes.service_router)
    app.include_router(routes.router)
    app.include_router(api.router)
    app.add_route(PREFIX, _to_console, include_in_schema=False)
    app.mount(PREFIX, build_console(app.state.service, books, texts, calls))
    handle_failures(app)
    document(app)
    add_docs(app)
    return app


def _middleware(gate: Middleware, cors_origins: Sequence[str]) -> list[Middleware]:
    """What each request passes through, from the outside in: whoever has no key learns of no body, and sends none."""
    before = [Middleware(RequestId), Middleware(CrossOrigin, origins=cors_origins), Middleware(LastResort)]
    return [*before, Middleware(Heads), gate, Middleware(JsonBodies), Middleware(BodyLimit)]


@asynccontextmanager
async def _close_calls(calls: Calls, _app: FastAPI) -> AsyncGenerator[None]:
    yield
    await asyncio.to_thread(calls.close)


def _to_console(_request: Request) -> Response:
    """A relative address: behind a proxy, this service knows neither the scheme nor the host that the browser asked."""
    return RedirectResponse(f"{PREFIX}/", status_code=307)
