"""What the routes of the ingress and of the console work with, and how a request becomes a job for a replica."""

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from deployment.errors import InvalidRequestError, NotFoundError
from deployment.gateway.answers import Answers, Engine
from deployment.health.watch import Watch
from deployment.replica.messages import ChatMessage, Job, ModelCard, PromptIds
from deployment.schemas.requests import ChatRequest, CompletionRequest
from rewards.keys.rules import Key
from rewards.ledger.ledger import Ledger


@dataclass(frozen=True)
class Service:
    """What the routes work with; `created` is when the app was built, in seconds since 1970."""

    engine: Engine
    answers: Answers
    ledger: Ledger
    watch: Watch
    max_tokens_cap: int | None
    created: int


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]


async def require_model(service: Service, name: str) -> ModelCard:
    """The model of that name.

    Raises:
        NotFoundError: another one is served.
    """
    card = await service.engine.describe()
    if name != card.name:
        raise NotFoundError(
            f"there is no model {name!r} here; {card.name!r} is served", param="model", code="model_not_found"
        )
    return card


async def job_of(
    service: Service,
    key: Key,
    request: ChatRequest | CompletionRequest,
    *,
    response_id: str,
    prompt: tuple[ChatMessage, ...] | str | PromptIds,
    limit_name: str = "max_tokens",
) -> Job:
    """The request as a job for a replica; `limit_name` is how the request called its `max_tokens`.

    Raises:
        NotFoundError: it asks for another model.
        InvalidRequestError: it asks for more tokens than it may.
        UnavailableError: no replica answers, or what the service stands on is lost.
    """
    service.watch.require()
    card = await require_model(service, request.model)
    most = min(service.max_tokens_cap or card.context_length, card.context_length)
    if request.token_limit is not None and request.token_limit > most:
        raise InvalidRequestError(
            f"{limit_name} is {request.token_limit}; this model generates at most {most} tokens for a request",
            param=limit_name,
            code="invalid_value",
        )
    return Job(
        response_id=response_id,
        application=key.identity,
        created_at_us=time.time_ns() // 1000,
        prompt=prompt,
        max_tokens=request.token_limit,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=request.stop,
        token_level=request.attribution == "tokens",
        streamed=request.stream,
        weight=key.weight or 1,
        top_k=request.top_k,
        min_p=request.min_p,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        logit_bias=request.logit_bias,
        top_logprobs=request.likely_tokens,
        attributed=request.attribution != "none" or service.answers.keeps_texts,
        with_token_ids=isinstance(request, CompletionRequest) and request.return_token_ids,
    )
