"""The API described for people at `/docs`, with calls to try out, and the way from `/` to the console.

Swagger UI comes in a package and is served from here, under the policy of the console's pages: nothing is fetched from
elsewhere, and no script stands within a page. Knows no route: what it shows is `/openapi.json`.
"""

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.middleware import Middleware
from starlette.routing import Route

from deployment.console.gate import PREFIX
from deployment.errors import NotFoundError
from deployment.http.page_headers import PageHeaders

_OWN: Final = Path(__file__).with_name("static")
_SWAGGER: Final = Path(fastapi_offline.__file__).with_name("static")
_FILES: Final = {
    "start.js": _OWN / "start.js",
    "swagger-ui-bundle.js": _SWAGGER / "swagger-ui-bundle.js",
    "swagger-ui.css": _SWAGGER / "swagger-ui.css",
}
_PAGE: Final = _OWN / "docs.html"


def add_docs(app: FastAPI) -> None:
    """Let the app answer `/docs`, the files of that page, and `/`; the addresses are relative to where they are."""
    version = sha256(b"".join(file.read_bytes() for file in _FILES.values())).hexdigest()[:12]
    page = _PAGE.read_text(encoding="utf-8").format(version=version)
    headers = [Middleware(PageHeaders)]
    app.add_route("/", _to_console, include_in_schema=False)
    app.router.routes.append(Route("/docs", partial(_show, page), middleware=headers))
    for name, file in _FILES.items():
        app.router.routes.append(Route(f"/docs/static/{name}", partial(_send, file), middleware=headers))


async def _to_console(request: Request) -> Response:
    """Browsers go to the console; a program that calls this, or a probe, is told where it should have gone.

    The address is relative: behind a proxy, this service knows neither the scheme nor the host that was asked.
    """
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{PREFIX}/", 307, headers={"Vary": "Accept"})
    raise NotFoundError(
        f"there is nothing at /: the API is described at /docs and in /openapi.json, GET /health says whether the "
        f"service answers, and the console is at {PREFIX}/",
        code="unknown_route",
    )


async def _show(page: str, _request: Request) -> Response:
    return HTMLResponse(page)


async def _send(file: Path, _request: Request) -> Response:
    return FileResponse(file)
