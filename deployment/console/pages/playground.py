"""`/playground`: ask the model as an application would, and see whose each token of the answer is.

What is asked here goes the way of `/v1/chat/completions`, under the key of an application: its limits hold, and its
responses are booked. Knows how a stream is followed by its heat map; how it comes about is `request_handling`'s
business.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from deployment.console.dependencies import TheBooks
from deployment.console.figures.credits import credits_of
from deployment.console.figures.heatmap import heat_map, twins
from deployment.console.pages.sign_in import is_https
from deployment.console.rendering import HERE, TheViewer, Viewer, redirect, render, sentence
from deployment.console.sessions import LONGEST_S
from deployment.errors import ForbiddenError, InvalidRequestError, UnavailableError
from deployment.gateway.service import Service, TheService, answering_models, job_of
from deployment.replica.messages import TokenCredit
from deployment.schemas.openai_requests import ChatRequest
from rewards.errors import KeyRefusedError
from rewards.keys.rules import Key

router = APIRouter()
CONNECTION: Final = "protoken_application"
_PATH: Final = "/playground"
_FEW_TOKENS: Final = 64


class Question(BaseModel):
    """What is asked; limits beyond these are the model's and the key's."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1)
    model: str | None = None
    max_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0, le=2)


async def _asks_as(request: Request, viewer: TheViewer, books: TheBooks) -> Key | None:
    """The application's key that the viewer asks with: its own, or one it presented in this session; None without."""
    if viewer.key.role == "application":
        return viewer.key
    key_id = request.app.state.sessions.read_connection(viewer.csrf, request.cookies.get(CONNECTION, ""))
    if key_id is None:
        return None
    try:
        key = await asyncio.to_thread(books.keys.find_valid, key_id)
    except KeyRefusedError:
        return None
    return key if key.role == "application" else None


AsksAs = Annotated[Key | None, Depends(_asks_as)]


@router.get(_PATH)
async def playground(request: Request, viewer: TheViewer, service: TheService, asks_as: AsksAs) -> Response:
    """The form to ask with, or first the one for an application's key."""
    return await _page(request, viewer, service, asks_as)


@router.post(f"{_PATH}/key")
async def connect(
    request: Request,
    viewer: TheViewer,
    service: TheService,
    books: TheBooks,
    presented: Annotated[str, Form(alias="key")] = "",
) -> Response:
    """Ask with an application's key from now on, until the session ends."""
    try:
        key = await run_in_threadpool(books.keys.check, presented.strip())
    except KeyRefusedError as error:
        return await _page(request, viewer, service, None, sentence(error))
    if key.role != "application":
        problem = f"This key has role {key.role}; what is asked here is booked to an application’s key."
        return await _page(request, viewer, service, None, problem)
    response = redirect(request, _PATH)
    response.set_cookie(
        CONNECTION,
        request.app.state.sessions.connect(viewer.csrf, key.key_id),
        path=HERE + _PATH,
        httponly=True,
        samesite="strict",
        secure=is_https(request),
        max_age=LONGEST_S,
    )
    return response


@router.post(f"{_PATH}/answer", response_model=None)
async def answer(request: Request, service: TheService, asks_as: AsksAs, question: Question) -> Response:
    """The answer as server-sent events, chunk by chunk as an application gets it, and then an event with its map."""
    if asks_as is None:
        raise ForbiddenError("connect an application’s key first, or again if it has ended", code="no_application")
    model = question.model or service.engine.names[0]
    if model not in service.engine.names:
        raise InvalidRequestError(f"model {model!r} is none of {', '.join(service.engine.names)}", param="model")
    chat = ChatRequest.model_validate(
        {
            "model": model,
            "messages": [{"role": "user", "content": question.prompt}],
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "stream": True,
            "attribution": "tokens",
        }
    )
    job = await job_of(service, asks_as, chat, response_id=f"chatcmpl-{uuid4().hex}")
    response = await service.answers.answer(asks_as, job, chat, None)
    assert isinstance(response, StreamingResponse), "a stream was asked for"
    return StreamingResponse(
        _with_map(request, job.response_id, response.body_iterator),
        media_type=response.media_type,
        headers={"Cache-Control": "no-cache"},
    )


async def _page(
    request: Request, viewer: Viewer, service: Service, asks_as: Key | None, problem: str | None = None
) -> Response:
    try:
        cards = await answering_models(service)
    except UnavailableError:
        cards = []
    most = min((card.context_length for card in cards), default=None)
    most = most and min(service.max_tokens_cap or most, most)
    return render(
        request,
        "playground.html",
        200 if problem is None else 400,
        models=[card.name for card in cards],
        most=most,
        few=_FEW_TOKENS if most is None else min(_FEW_TOKENS, most),
        asks_as=asks_as,
        is_own=viewer.key.role == "application",
        keeps_texts=request.app.state.texts is not None,
        problem=problem,
    )


async def _with_map(request: Request, response_id: str, chunks: AsyncIterable[Any]) -> AsyncGenerator[str, None]:
    """The chunks as they come; before the last, which says that it is done, an event `map` of HTML."""
    content: list[dict[str, Any]] = []
    usage: dict[str, Any] | None = None
    try:
        async for chunk in chunks:
            if chunk.startswith(":"):  # a comment that keeps the connection alive
                yield chunk
                continue
            if chunk == "data: [DONE]\n\n":
                assert usage is not None, "attribution was asked for, and comes in the usage chunk"
                html = await run_in_threadpool(_map, request, response_id, content, usage)
                yield f"event: map\ndata: {json.dumps({'html': html})}\n\n"
            else:
                document = json.loads(chunk.removeprefix("data: "))
                usage = document.get("usage", usage)
                for choice in document.get("choices", ()):
                    content += choice["delta"].get("attribution", {}).get("content", ())
            yield chunk
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def _map(request: Request, response_id: str, content: list[dict[str, Any]], usage: dict[str, Any]) -> str:
    """The heat map of a response and whose credit it is, as a part of the page."""
    attribution = usage["attribution"]
    amounts = {account: int(text) for account, text in attribution["credit"].items()}
    page = render(
        request,
        "answer.html",
        response_id=response_id,
        receipt_id=attribution["receipt_id"],
        tokens=usage["completion_tokens"],
        map=heat_map([_credit(token) for token in content]),
        twins=twins(request.app.state.figures.names()),
        credits=credits_of(amounts, usage["completion_tokens"]),
    )
    return bytes(page.body).decode()


def _credit(token: dict[str, Any]) -> TokenCredit:
    """A token's entry on the wire, as it was before."""
    return TokenCredit(
        token=token["token"],
        token_id=token["token_id"],
        shares={each["client"]: each["share"] for each in token["clients"]},
        scores={each["client"]: each["score"] for each in token["clients"]},
        base_share=token["base_share"],
    )
