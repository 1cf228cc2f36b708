"""A request and its answer as an application kept them: the prompt, the text, and where it was told its token ids.

Reads the bodies that went over HTTP. Knows no model and no receipt.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployment.errors import RecomputationError
from deployment.replica.messages import Prompt, prompt_of
from deployment.schemas.openai_requests import ChatRequest, CompletionRequest
from rewards.files import strict_json

_ID = re.compile(r"((?:chatcmpl|cmpl)-[0-9a-f]+)(?:-([0-9]+))?")
_CHAT = "chatcmpl-"
_NAMED_BY_ID = "token_id:"


@dataclass(frozen=True)
class SentRequest:
    """What was asked for, by the request's body.

    Attributes:
        model: the consortium.
        prompt: what was to be continued.
        temperature: 0 is greedy.
        stop: strings that end it.
    """

    model: str
    prompt: Prompt = field(repr=False)
    temperature: float
    stop: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class ReceivedAnswer:
    """What was answered: its text, and the ids of its tokens where the application was told them."""

    text: str = field(repr=False)
    token_ids: tuple[int, ...] | None = field(default=None, repr=False)


def read_request(path: Path, response_id: str) -> SentRequest:
    """What a request's body asked for, of which a response of that id came.

    Raises:
        RecomputationError: it cannot be read, is no request that this service answers, or none of such a response.
    """
    document = _document(path)
    kind = ChatRequest if "messages" in document else CompletionRequest
    try:
        request: ChatRequest | CompletionRequest = kind.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise RecomputationError(
            f"{path} is no request that this service answers: {f'{place}: ' if place else ''}{problem['msg']}"
        ) from None
    _, index = _parts(response_id)
    if _ID.fullmatch(response_id) and response_id.startswith(_CHAT) != isinstance(request, ChatRequest):
        kinds = ("a chat", "a text completion")
        of, asks = kinds if response_id.startswith(_CHAT) else kinds[::-1]
        raise RecomputationError(f"{path} asks for {asks}, and {response_id!r} is the answer to {of}")
    if index >= request.n:
        raise RecomputationError(f"{path} asks for {request.n} responses, and {response_id!r} is number {index + 1}")
    return SentRequest(request.model, prompt_of(request), request.temperature, request.stop)


def read_answer(path: Path, response_id: str) -> ReceivedAnswer:
    """What an answer's body says of a response.

    Of an answer with several choices, the one is taken whose id it is.

    Raises:
        RecomputationError: it cannot be read, or is not the answer of that response.
    """
    document = _document(path)
    request_id, index = _parts(response_id)
    if document.get("id") != request_id:
        raise RecomputationError(f"{path} is not the answer of {response_id!r}, but of {document.get('id')!r}")
    try:
        choice = next(each for each in document["choices"] if each["index"] == index)
        if "message" not in choice:
            ids = choice.get("token_ids") or _ids_of(_content(choice)) or _named_ids(choice)
            return ReceivedAnswer(_text(choice["text"]), ids and tuple(ids))
        message = choice["message"]
        if message.get("tool_calls"):
            raise RecomputationError(f"{path} holds calls of tools, which this service never makes")
        return ReceivedAnswer(_text(message["content"]), _ids_of(_content(message)))
    except (StopIteration, LookupError, TypeError, AttributeError) as error:
        raise RecomputationError(f"{path} is no whole answer of this service, with {response_id!r} in it") from error


def read_text(path: Path) -> ReceivedAnswer:
    """A text alone, as the pieces of a stream make it.

    Raises:
        RecomputationError: it cannot be read.
    """
    return ReceivedAnswer(_text_of(path))


def _parts(response_id: str) -> tuple[str, int]:
    """The id of the answer in which a response came, and its place among the choices."""
    match = _ID.fullmatch(response_id)
    return (response_id, 0) if match is None else (match[1], int(match[2] or 0))


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise RecomputationError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecomputationError(f"{path} is not UTF-8: byte {error.start} cannot be read") from error


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = strict_json.load(_text_of(path))
    except ValueError as error:
        raise RecomputationError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RecomputationError(f"{path} must hold one JSON object, the body as it was")
    return document


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _content(holder: Mapping[str, Any]) -> Any:
    return (holder.get("attribution") or {}).get("content")


def _ids_of(content: Any) -> tuple[int, ...] | None:
    """The ids in attribution by token; None where none was asked for."""
    return tuple(int(token["token_id"]) for token in content) if content else None


def _named_ids(choice: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The ids by which `return_tokens_as_token_ids` names tokens; None where it was not asked for."""
    names = (choice.get("logprobs") or {}).get("tokens") or []
    if not names or not all(str(name).startswith(_NAMED_BY_ID) for name in names):
        return None
    return tuple(int(name.removeprefix(_NAMED_BY_ID)) for name in names)
