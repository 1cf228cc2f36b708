"""What the routes of the ingress and of the console work with, and how a request becomes a job for a replica."""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from deployment.errors import InvalidRequestError, NotFoundError, UnavailableError
from deployment.gateway.request_handling import Answers, Engine
from deployment.health.faults import Watch
from deployment.replica.messages import Job, ModelCard, prompt_of
from deployment.schemas.openai_requests import ChatRequest, CompletionRequest
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
        NotFoundError: none of that name is served.
        UnavailableError: no replica of it answers.
    """
    names = service.engine.names
    if name not in names:
        served = f"{', '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} served"
        raise NotFoundError(f"there is no model {name!r} here; {served}", param="model", code="model_not_found")
    return await service.engine.describe(name)


async def answering_models(service: Service) -> list[ModelCard]:
    """The models that answer.

    Raises:
        UnavailableError: none does.
    """
    describing = (service.engine.describe(name) for name in service.engine.names)
    cards = await asyncio.gather(*describing, return_exceptions=True)
    for error in cards:
        if isinstance(error, BaseException) and not isinstance(error, UnavailableError):
            raise error
    answering = [card for card in cards if isinstance(card, ModelCard)]
    if not answering:
        raise next(error for error in cards if isinstance(error, UnavailableError))
    return answering


async def job_of(
    service: Service,
    key: Key,
    request: ChatRequest | CompletionRequest,
    *,
    response_id: str,
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
        prompt=prompt_of(request),
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
        model=card.name,
    )
