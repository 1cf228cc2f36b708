"""What the OpenAPI document says of the service as a whole: its parts, its key, and how it refuses. Knows no route.

FastAPI writes down that a bad request is 422 in a shape of its own; here it is 400 in OpenAI's (`exception_handlers`).
"""

from functools import cache
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from deployment.access.permissions import OPEN_ROUTES
from deployment.schemas.errors import ErrorBody, failures
from rewards.files.strict_json import JsonObject

TITLE = "protoken"
_DESCRIPTION = """\
Who earned what? A federated language model answers over OpenAI's API; every generated token is credited to the member
organisations whose training it came from, in a ledger that only grows; a period's credit becomes payouts.

Credit is in micro-credits: one generated token is 1 000 000. Times are in microseconds since 1970, UTC, and end in
`_us`. Money is in the currency's minor units. Credit, tokens and money are decimal text, so that no reader of JSON
rounds them; every other integer is at most 2^53 - 1. Every refusal has OpenAI's error shape.

Every call but `GET /health` needs a bearer key, made by `protoken keys create`. A key's role decides what it may call;
a member's key sees its own client alone. This document needs none; `/docs` shows it, with calls to try out.
"""
_TAGS = (
    ("openai", "For applications: OpenAI's completions, with attribution where it is asked for."),
    ("service", "Whether the service answers."),
    ("consortium", "The consortia, their clients and the models that answered."),
    ("credit", "Who earned what: shares, credit and the entries they are made of."),
    ("receipts", "The credit of each response as it was booked, and its reversal."),
    ("events", "What happened besides: periods, holds, statements, keys, privileged calls."),
    ("exports", "Entries and receipts as files, for spreadsheets and for metering."),
    ("periods", "Periods, previewed, closed, disputed, final and paid, with their settlements."),
    ("holds", "What is not to be paid for the time being."),
    ("statements", "What each client is told of a period, signed."),
    ("rounds", "Rounds of training: which was published when, and who contributed what to it."),
    ("log", "The Merkle log of the books: checkpoints and proofs."),
    ("keys", "Bearer keys: made, listed, rotated, revoked."),
)
_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "ptk_<id>_<secret>",
    "description": "A key made by `protoken keys create`.",
}
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}


def document(app: FastAPI) -> None:
    """Let the app describe itself: `app.openapi` and `GET /openapi.json`."""

    @cache
    def openapi() -> JsonObject:
        schema = get_openapi(
            title=TITLE,
            version=version(TITLE),
            description=_DESCRIPTION,
            routes=app.routes,
            tags=[{"name": name, "description": meaning} for name, meaning in _TAGS],
        )
        _complete(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(schema: JsonObject) -> None:
    """Add what is true of every route."""
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    _, errors = models_json_schema([(ErrorBody, "serialization")], ref_template="#/components/schemas/{model}")
    schemas.update(errors["$defs"])
    components["securitySchemes"] = {"bearer": _SCHEME}
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            is_open = (method.upper(), path) in OPEN_ROUTES
            operation["security"] = [] if is_open else [{"bearer": []}]
            _refusals(operation, is_open=is_open)


def _refusals(operation: JsonObject, *, is_open: bool) -> None:
    """400 where FastAPI says 422, and what the gate and the ledger answer before a route is reached."""
    answers = operation["responses"]
    statuses = [500, 503] if is_open else [401, 403, 500, 503]
    if "HTTPValidationError" in str(answers.get("422")):
        del answers["422"]
        statuses.append(400)
    if "requestBody" in operation:
        statuses.append(413)
    for status, answer in failures(*statuses).items():
        told = {name: value for name, value in answer.items() if name != "model"}
        answers.setdefault(str(status), {**told, "content": _ERROR})
    operation["responses"] = dict(sorted(answers.items()))
