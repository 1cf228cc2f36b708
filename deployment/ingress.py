"""The OpenAI-compatible routes, as a function that builds the FastAPI app. No rule of the domain lives here.

The app is built where it runs and is never pickled. What it needs of a replica is the `Engine` protocol; Ray
stands behind it in the service (`gateway`), a plain class in tests.
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Protocol
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.middleware import Middleware

from deployment import operator
from deployment.errors import InternalError, InvalidRequestError, NotFoundError
from deployment.failures import LastResort, RequestId, handle_failures
from deployment.messages import ChatMessage, Delta, Event, Failed, Finished, Job, ModelCard
from deployment.schemas import ChatRequest, CompletionRequest, ModelList, ModelObject
from deployment.security import BodyLimit, Gate, caller
from deployment.wire import ChatWire, TextWire, Wire
from rewards import COMMONS, MICRO_CREDITS_PER_TOKEN, Key, KeyRing, Ledger

__all__ = ["Engine", "build_app"]


class Engine(Protocol):
    """What the ingress asks of the replicas."""

    async def describe(self) -> ModelCard:
        """What is served."""

    async def check(self) -> None:
        """Return when a replica answers.

        Raises:
            UnavailableError: none does.
        """

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response: any number of `Delta`, then one `Finished` or `Failed`. Closing it cancels."""


@dataclass(frozen=True)
class Service:
    """What the routes work with; `created` is when this app was built, in seconds since 1970."""

    engine: Engine
    ledger: Ledger
    max_tokens_cap: int | None
    created: int


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]
Caller = Annotated[Key, Depends(caller)]
router = APIRouter()


def build_app(engine: Engine, ledger: Ledger, keys: KeyRing, *, max_tokens_cap: int | None = None) -> FastAPI:
    """The service's whole HTTP surface.

    Args:
        engine: makes the responses.
        ledger: where receipts are read.
        keys: who may call.
        max_tokens_cap: the most tokens a request may ask for; None leaves the model's context as the only cap.
    """
    app = FastAPI(
        title="protoken",
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(RequestId), Middleware(LastResort), Middleware(Gate, keys=keys), Middleware(BodyLimit)],
    )
    app.state.service = Service(engine, ledger, max_tokens_cap, int(time.time()))
    app.state.ledger = ledger
    app.include_router(router)
    app.include_router(operator.router)
    handle_failures(app)
    return app


@router.get("/health")
async def health(service: TheService) -> dict[str, str]:
    """Whether a replica answers: 200, or 503."""
    await service.engine.check()
    return {"status": "ok"}


@router.get("/v1/models")
async def list_models(service: TheService) -> ModelList:
    """The one model that is served."""
    return ModelList(data=[_model_object(service, await service.engine.describe())])


@router.get("/v1/models/{name}")
async def get_model(service: TheService, name: str) -> ModelObject:
    """One model by its name."""
    return _model_object(service, await _served(service, name))


@router.get("/v1/attributions/{response_id}")
def get_attribution(service: TheService, key: Caller, response_id: str) -> dict[str, Any]:
    """The booked credit of a response, for the key that asked for it; to any other key it does not exist."""
    receipt = service.ledger.receipt(response_id)
    if receipt is None or receipt["application"] != key.key_id:
        raise NotFoundError(
            f"this key made no response {response_id!r}", param="response_id", code="response_not_found"
        )
    whole = receipt["tokens"] * MICRO_CREDITS_PER_TOKEN
    shares = {account: amount / whole for account, amount in receipt["amounts"].items()}
    base_share = shares.pop(COMMONS)
    return {
        "id": response_id,
        "object": "attribution",
        "created": receipt["created_at_us"] // 1_000_000,
        "receipt_id": receipt["payload_sha256"],
        "model": receipt["consortium"],
        "model_sha256": receipt["model_sha256"],
        "method": receipt["method"],
        "settings": receipt["settings"],
        "version": receipt["version"],
        "tokens": receipt["tokens"],
        "shares": shares,
        "base_share": base_share,
        "credit": receipt["amounts"],
        "measurement": receipt["measurement"],
    }


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(service: TheService, key: Caller, request: ChatRequest) -> Response:
    """Continue a conversation."""
    # `developer` is OpenAI's newer name for `system`; chat templates know the older one.
    prompt = tuple(
        ChatMessage("system" if message.role == "developer" else message.role, message.text)
        for message in request.messages
    )
    limit_name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    response_id = f"chatcmpl-{uuid4().hex}"
    job = await _job(service, key, request, response_id=response_id, prompt=prompt, limit_name=limit_name)
    wire = ChatWire(job.response_id, _seconds(job), request.model, request.attribution)
    return await _respond(service.engine, job, wire, request)


@router.post("/v1/completions", response_model=None)
async def completions(service: TheService, key: Caller, request: CompletionRequest) -> Response:
    """Continue a text."""
    job = await _job(service, key, request, response_id=f"cmpl-{uuid4().hex}", prompt=request.prompt)
    wire = TextWire(job.response_id, _seconds(job), request.model, request.attribution)
    return await _respond(service.engine, job, wire, request)


async def _served(service: Service, name: str) -> ModelCard:
    card = await service.engine.describe()
    if name != card.name:
        raise NotFoundError(
            f"there is no model {name!r} here; {card.name!r} is served", param="model", code="model_not_found"
        )
    return card


def _model_object(service: Service, card: ModelCard) -> ModelObject:
    return ModelObject(
        id=card.name,
        created=service.created,
        global_sha256=card.global_sha256,
        clients=list(card.client_ids),
        context_length=card.context_length,
    )


async def _job(
    service: Service,
    key: Key,
    request: ChatRequest | CompletionRequest,
    *,
    response_id: str,
    prompt: tuple[ChatMessage, ...] | str,
    limit_name: str = "max_tokens",
) -> Job:
    """The request as a job for a replica; `limit_name` is how the request called its `max_tokens`."""
    card = await _served(service, request.model)
    most = min(service.max_tokens_cap or card.context_length, card.context_length)
    if request.token_limit is not None and request.token_limit > most:
        raise InvalidRequestError(
            f"{limit_name} is {request.token_limit}; this model generates at most {most} tokens for a request",
            param=limit_name,
            code="invalid_value",
        )
    return Job(
        response_id=response_id,
        application=key.key_id,
        created_at_us=time.time_ns() // 1000,
        prompt=prompt,
        max_tokens=request.token_limit,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=request.stop,
        token_level=request.attribution == "tokens",
    )


def _seconds(job: Job) -> int:
    return job.created_at_us // 1_000_000


async def _respond(engine: Engine, job: Job, wire: Wire, request: ChatRequest | CompletionRequest) -> Response:
    events = engine.generate(job)
    if not request.stream:
        text, end = await _collect(events)
        return JSONResponse(wire.whole(text, end))
    first = await anext(events)  # awaited here, so that a refusal still has a status of its own
    if isinstance(first, Failed):
        await events.aclose()
        raise first.error()
    stream = _server_sent(wire, first, events, with_usage=request.wants_usage)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _collect(events: AsyncGenerator[Event, None]) -> tuple[str, Finished]:
    """The whole text and the end of a response; on failure nothing of the text is given away."""
    pieces: list[str] = []
    async with aclosing(events):
        async for event in events:
            match event:
                case Delta():
                    pieces.append(event.text)
                case Finished():
                    return "".join(pieces) + event.text, event
                case Failed():
                    raise event.error()
    raise InternalError("the model stopped without an end", code="internal_error")


async def _server_sent(
    wire: Wire, first: Event, events: AsyncGenerator[Event, None], *, with_usage: bool
) -> AsyncIterator[str]:
    """The response as server-sent events. Every event is awaited, so a disconnect cancels the job at the next one."""
    async with aclosing(events):
        for body in wire.opening():
            yield _data(body)
        event: Event = first
        while isinstance(event, Delta):
            yield _data(wire.delta(event.text))
            event = await anext(events)
        if isinstance(event, Failed):
            yield _data(event.error().body())
            return
        if event.text:
            yield _data(wire.delta(event.text))
        for body in wire.closing(event, with_usage=with_usage):
            yield _data(body)
        yield "data: [DONE]\n\n"


def _data(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'), allow_nan=False)}\n\n"
