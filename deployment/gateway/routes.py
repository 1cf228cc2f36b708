"""The OpenAI-compatible routes, and `GET /health`. No rule of the domain lives here.

How an answer comes about is told in `request_handling`.
"""

import asyncio
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from deployment.access.gate import caller
from deployment.errors import RETRY_AFTER_S, NotFoundError
from deployment.gateway.health_report import health_report
from deployment.gateway.idempotency import check_key
from deployment.gateway.service import Service, TheService, answering_models, job_of, require_model
from deployment.replica.messages import ModelCard
from deployment.schemas.errors import Answers, failures
from deployment.schemas.openai_requests import ChatRequest, CompletionRequest
from deployment.schemas.openai_responses import Attribution, ModelList, ModelObject, PendingAttribution
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN
from rewards.keys.rules import Key
from rewards.ledger.usage import is_of
from rewards.store.receipts import BookedReceipt

_OF_RECEIPT = ("model_sha256", "method", "settings", "version", "tokens", "measurement")


async def _idempotency_key(request: Request) -> str | None:
    return check_key(request.headers.getlist("idempotency-key"))


async def _caller(request: Request) -> Key:
    """As for all that an application's request needs, no thread: those may be taken by whoever waits for the ledger."""
    return caller(request)


Caller = Annotated[Key, Depends(_caller)]
IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]
router = APIRouter(tags=["openai"])
service_router = APIRouter(tags=["service"])
_COMPLETED: Answers = {
    200: {
        "description": "The response, whole or, with `stream`, as server-sent events that end in `[DONE]`.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    },
    **failures(400, 404, 409, 422, 429),
}


@service_router.get("/health")
async def health(service: TheService) -> JSONResponse:
    """Whether a replica answers and all is there that the service stands on, part by part: 200, or 503.

    Of several models one that does not answer makes it `degraded`, as does a bundle that was published and cannot be
    served; with none that answers it is 503.
    """
    return await health_report(service.engine, service.watch)


@router.get("/v1/models")
async def list_models(service: TheService) -> ModelList:
    """The models that are served, each of a consortium; `global_sha256` tells from which bundle."""
    return ModelList(data=[_model_object(service, card) for card in await answering_models(service)])


@router.get("/v1/models/{name}", responses=failures(404))
async def get_model(service: TheService, name: str) -> ModelObject:
    """One model by its name."""
    return _model_object(service, await require_model(service, name))


_PENDING: Answers = {
    202: {"model": PendingAttribution, "description": "The credit of the response is not booked yet; ask again."}
}


@router.get("/v1/attributions/{response_id}", response_model=Attribution, responses={**_PENDING, **failures(404)})
async def get_attribution(service: TheService, key: Caller, response_id: str) -> Attribution | JSONResponse:
    """The booked credit of a response, for the application that asked for it; to any other it does not exist."""
    receipt = await asyncio.to_thread(_receipt, service, key, response_id)
    if receipt is None:
        pending = PendingAttribution(id=response_id).model_dump()
        return JSONResponse(pending, 202, headers={"Retry-After": str(RETRY_AFTER_S)})
    whole = receipt.tokens * MICRO_CREDITS_PER_TOKEN
    shares = {account: amount / whole for account, amount in receipt.amounts.items()}
    base_share = shares.pop(COMMONS)
    return Attribution(
        id=response_id,
        created=receipt.created_at_us // 1_000_000,
        receipt_id=receipt.payload_sha256,
        model=receipt.consortium,
        credit=dict(receipt.amounts),
        shares=shares,
        base_share=base_share,
        **{name: getattr(receipt, name) for name in _OF_RECEIPT},
    )


def _receipt(service: Service, key: Key, response_id: str) -> BookedReceipt | None:
    """The receipt of a response of this application; None where it is still to come.

    Raises:
        NotFoundError: the application made no such response.
    """
    receipt = service.ledger.receipt(response_id)
    if receipt is not None and is_of(service.ledger.database, key.identity, receipt.application):
        return receipt
    if service.answers.is_promised(response_id, key.identity):
        return None
    raise NotFoundError(f"this key made no response {response_id!r}", param="response_id", code="response_not_found")


@router.post("/v1/chat/completions", response_model=None, responses=_COMPLETED)
async def chat_completions(
    service: TheService, key: Caller, idempotency_key: IdempotencyKey, request: ChatRequest
) -> Response:
    """Continue a conversation."""
    limit_name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    response_id = f"chatcmpl-{uuid4().hex}"
    job = await job_of(service, key, request, response_id=response_id, limit_name=limit_name)
    return await service.answers.answer(key, job, request, idempotency_key)


@router.post("/v1/completions", response_model=None, responses=_COMPLETED)
async def completions(
    service: TheService, key: Caller, idempotency_key: IdempotencyKey, request: CompletionRequest
) -> Response:
    """Continue a text."""
    job = await job_of(service, key, request, response_id=f"cmpl-{uuid4().hex}")
    return await service.answers.answer(key, job, request, idempotency_key)


def _model_object(service: Service, card: ModelCard) -> ModelObject:
    return ModelObject(
        id=card.name,
        created=service.created,
        global_sha256=card.global_sha256,
        clients=list(card.client_ids),
        context_length=card.context_length,
    )
