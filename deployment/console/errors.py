"""Whatever goes wrong in the console, as a page in its layout with the status it has. Knows no page of its own."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

from deployment.console.rendering import render
from deployment.errors import ApiError, InternalError
from deployment.http.exception_handlers import FORESEEN, to_api_error


def page_of(request: Request, error: ApiError) -> HTMLResponse:
    """The page that tells of one of our own errors."""
    return _page(request, error.status, error.message, error.headers)


def handle_failures(app: FastAPI) -> None:
    """Let the console answer every foreseen failure with a page."""
    for error in FORESEEN:
        app.add_exception_handler(error, _foreseen_page)
    app.add_exception_handler(HTTPException, _http_page)


def last_resort(scope: Scope, receive: Receive) -> HTMLResponse:
    """The page for what nobody foresaw: without its text, but with the request id under which the log has it."""
    return page_of(Request(scope, receive), InternalError("something went wrong here, and it is in the log"))


async def _foreseen_page(request: Request, error: Exception) -> HTMLResponse:
    return page_of(request, to_api_error(error))


async def _http_page(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, HTTPException)
    message = "there is no such page" if error.status_code in {404, 405} else error.detail
    return _page(request, error.status_code, message, dict(error.headers or {}))


def _page(request: Request, status: int, message: str, headers: dict[str, str]) -> HTMLResponse:
    response = render(
        request,
        "error.html",
        status,
        title=HTTPStatus(status).phrase,
        message=message,
        request_id=request.headers.get("x-request-id", ""),
        code=status,
    )
    response.headers.update(headers)
    return response
