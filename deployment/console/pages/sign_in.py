"""`/sign-in` and `/sign-out`: a bearer key for a session, and the end of it."""

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from deployment.access.audit_trail import Calls
from deployment.console.dependencies import TheBooks
from deployment.console.gate import PREFIX
from deployment.console.rendering import render, sentence
from deployment.console.sessions import COOKIE, LONGEST_S
from rewards.errors import KeyRefusedError

router = APIRouter()
_LOCAL = re.compile(PREFIX + r"(/[\w\-.~%!$&'()*+,;=:@/]*)?(\?[\w\-.~%!$&'()*+,;=:@/?]*)?", re.ASCII)


@router.get("/sign-in")
def form(request: Request, wanted: Annotated[str, Query(alias="next")] = "") -> Response:
    """The form."""
    return render(request, "sign_in.html", wanted=local(wanted), problem=None)


@router.post("/sign-in")
async def sign_in(
    request: Request,
    books: TheBooks,
    presented: Annotated[str, Form(alias="key")] = "",
    wanted: Annotated[str, Form(alias="next")] = "",
) -> Response:
    """Begin a session of the key that was typed.

    Any number of tries may be made: a key has 256 random bits, and no number of guesses comes near one.
    """
    try:
        # In the threads of the pages: who guesses takes none of those in which requests are admitted.
        key = await run_in_threadpool(books.keys.check, presented.strip())
    except KeyRefusedError as error:
        return render(request, "sign_in.html", 401, wanted=local(wanted), problem=sentence(error))
    calls: Calls = request.app.state.calls
    if key.role == "application":
        calls.count(key, "POST", f"{PREFIX}/sign-in", 303)
    else:
        await calls.write(key, request.scope, 303)
    response = RedirectResponse(local(wanted), status_code=303)
    response.set_cookie(
        COOKIE,
        request.app.state.sessions.begin(key),
        path=PREFIX,
        httponly=True,
        samesite="strict",
        secure=is_https(request),
        max_age=LONGEST_S,
    )
    return response


@router.post("/sign-out")
def sign_out() -> Response:
    """End the session in this browser."""
    response = RedirectResponse(f"{PREFIX}/sign-in", status_code=303)
    response.delete_cookie(COOKIE, path=PREFIX)
    return response


def local(wanted: str) -> str:
    """Where to go after signing in: a path of the console, whatever somebody wrote into the link."""
    path = unquote(wanted.partition("?")[0])
    is_local = _LOCAL.fullmatch(wanted) and ".." not in path.split("/") and "\\" not in path and "//" not in path
    return wanted if is_local else f"{PREFIX}/"


def is_https(request: Request) -> bool:
    """Whether the browser came by https, to us or to a proxy in front. Who says so falsely harms only itself."""
    forwarded = request.headers.get("x-forwarded-proto", "").lower()  # one word for each proxy on the way
    return "https" in (request.url.scheme, *(word.strip() for word in forwarded.split(",")))
