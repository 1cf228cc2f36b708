"""Turns whatever goes wrong in a request into one answer in OpenAI's shape, and gives every answer a request id.

Covers our own errors, FastAPI's validation and malformed JSON, unknown routes, and what nobody foresaw.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.errors import (
    RETRY_AFTER_S,
    ApiError,
    ConflictError,
    InternalError,
    InvalidRequestError,
    UnavailableError,
    envelope,
    ledger_away,
)
from rewards.errors import (
    CreditError,
    HoldError,
    KeyRingError,
    LedgerError,
    LedgerLostError,
    PeriodEmptyError,
    PeriodError,
    PeriodMovedError,
    PolicyError,
    RewardsError,
    SignatureError,
)
from rewards.files.plain_text import one_line
from rewards.periods.errors import PeriodClosedError

_LOG = logging.getLogger(__name__)
_REQUEST_ID = "x-request-id"
_GOOD_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_REFUSALS: Final[dict[type[RewardsError], tuple[type[ApiError], str]]] = {
    PeriodClosedError: (ConflictError, "period_closed"),
    PeriodEmptyError: (ConflictError, "period_empty"),
    PeriodMovedError: (ConflictError, "period_moved"),
    PeriodError: (ConflictError, "period_state"),
    HoldError: (ConflictError, "hold_state"),
    PolicyError: (InvalidRequestError, "invalid_policy"),
    CreditError: (ConflictError, "not_settleable"),
    KeyRingError: (InvalidRequestError, "invalid_key"),
    SignatureError: (UnavailableError, "signing_key_unavailable"),
}
"""What the books refuse, and what that is over HTTP."""

LOST: Final = {
    "ledger_missing": "the service's ledger is gone: nothing can be booked before it is back",
    "ledger_replaced": "the service's ledger is another one than when it started: put that back, or start it again",
    "ledger_log_missing": "a part of the service's ledger was taken away while in use: start the service again",
    "ledger_damaged": "the service's ledger is damaged",
}
"""What anybody is told of a ledger that is lost, by its code; where it lies is in the service's own log."""

FORESEEN: Final[tuple[type[Exception], ...]] = (ApiError, RequestValidationError, LedgerError, *_REFUSALS)
"""Every failure that `to_api_error` knows what to say of."""


def answer(error: ApiError) -> JSONResponse:
    """The HTTP answer to one of our own errors."""
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def handle_failures(app: FastAPI) -> None:
    """Let `app` answer every foreseen failure in OpenAI's shape."""
    for error in FORESEEN:
        app.add_exception_handler(error, _answer_foreseen)
    app.add_exception_handler(HTTPException, _answer_http)


def to_api_error(error: Exception) -> ApiError:
    """What a caller is told of a failure of one of the classes in FORESEEN."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid_request(error)
    # What the books refuse is a LedgerError too: the most telling class of the error decides.
    refused = next((_REFUSALS[kind] for kind in type(error).__mro__ if kind in _REFUSALS), None)
    if isinstance(error, LedgerLostError):
        _LOG.error("nothing can be booked: %s", error)
        return UnavailableError(LOST[error.code], code=error.code, retry_after_s=RETRY_AFTER_S)
    if refused is None:
        _LOG.error("the ledger could not be read: %s", error)
        return ledger_away()
    refusal, code = refused
    return refusal(str(error), code=code)


async def _answer_foreseen(_request: Request, error: Exception) -> JSONResponse:
    return answer(to_api_error(error))


def _invalid_request(error: RequestValidationError) -> InvalidRequestError:
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        reason = problem["ctx"]["error"]
        return InvalidRequestError(f"the body is not valid JSON: {reason}", code="invalid_json")
    if problem["type"] == "missing" and problem["loc"] == ("body",):
        return InvalidRequestError("a JSON object is wanted as the body, {} where no field is needed", code="no_body")
    param = _param(problem)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = f"{param}: is no field of this request; /docs lists those there are"
    elif param and not re.search(rf"(?<!\w){re.escape(param)}(?!\w)", message):
        message = f"{param}: {message}"
    return InvalidRequestError(message, param=param, code=_code(problem))


def _param(problem: Mapping[str, Any]) -> str | None:
    """The request field at fault: what our own check named, else the place where pydantic found it."""
    named = problem.get("ctx", {}).get("param")
    if named:
        return str(named)
    place = [str(part) for part in problem["loc"][1:]]  # the first is body, query or path
    return ".".join(place) or None


_OWN_KINDS = frozenset({"unknown_parameter", "unsupported_content", "unsupported_parameter", "unsupported_prompt"})


def _code(problem: Mapping[str, Any]) -> str:
    kind = str(problem["type"])
    if kind == "missing":
        return "missing_required_parameter"
    return kind if kind in _OWN_KINDS else "invalid_value"


_CODE_OF_STATUS = {404: "unknown_route", 405: "method_not_allowed", 413: "request_too_large"}


def _unreadable_body(cause: BaseException | None) -> InvalidRequestError:
    """Why a body could not be taken as JSON at all, by what the parser raised."""
    match cause:
        case UnicodeDecodeError():
            reason, code = f"the body is not UTF-8: byte {cause.start} cannot be read", "invalid_utf8"
        case RecursionError():
            reason, code = "the body is not valid JSON: it is nested too deeply", "invalid_json"
        case _:
            reason, code = "the body cannot be read as JSON", "invalid_json"
    return InvalidRequestError(reason, code=code)


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # FastAPI's word for a body that its JSON parser did not take
        return answer(_unreadable_body(error.__cause__))
    message = error.detail
    if error.status_code in {404, 405}:
        message = f"there is no {request.method} {request.url.path} here"
    kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
    body = envelope(message, kind, code=_CODE_OF_STATUS.get(error.status_code))
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def _answer_internal(_scope: Scope, _receive: Receive) -> Response:
    return answer(InternalError("internal error", code="internal_error"))


class LastResort:
    """ASGI middleware: an exception that nobody foresaw is logged and answered with a 500, without its text.

    Args:
        app: what may fail.
        answered: makes the answer.
    """

    def __init__(self, app: ASGIApp, answered: Callable[[Scope, Receive], Response] = _answer_internal) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; where the answer has begun, all that is left is to break it off."""
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            if scope["type"] != "http" or started:
                raise
            _LOG.exception("unforeseen failure in %s %s", scope["method"], one_line(scope["path"]))
            await self._answered(scope, receive)(scope, receive, send)


class RequestId:
    """ASGI middleware: every answer carries `x-request-id`, the caller's own when it is a plain word.

    It stands in the app and once more in front of Serve's proxy, which would add a second id of its own: the outer
    one hands its id down in the request, so that all of them agree.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and stamp the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_REQUEST_ID, "")
        request_id = given if _GOOD_REQUEST_ID.fullmatch(given) else str(uuid4())
        MutableHeaders(scope=scope)[_REQUEST_ID] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_REQUEST_ID] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
