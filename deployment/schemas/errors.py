"""The body of every refusal, as the OpenAPI document tells it. `deployment.errors` says what goes into one."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deployment.schemas.fields import LARGEST

Answers = dict[int | str, dict[str, Any]]
"""What a route declares as its answers: status -> how OpenAPI describes it."""
_MEANINGS = {
    400: "The request cannot be served as it is; `param` names what is wrong with it.",
    401: "No key was given, or one that opens nothing.",
    403: "The key is good, but its role may not do this.",
    404: "There is no such thing, or the key may not see it.",
    409: "The request conflicts with how things stand.",
    413: "The body is too large.",
    422: "The request is well-formed, and contradicts an earlier one under the same key.",
    429: "Every place is taken, or the key asks too often, or its budget is used up.",
    500: "The service's own fault.",
    503: "The ledger or the model is away; `Retry-After` says when to come back.",
}


class ErrorDetail(BaseModel):
    """What went wrong, in OpenAI's shape."""

    model_config = ConfigDict(frozen=True)

    message: str = Field(description="For people: what is wrong, and what would be right.")
    type: str = Field(description="The kind of failure, as OpenAI's clients know it.")
    param: str | None = Field(description="The parameter or field at fault, where there is one.")
    code: str | None = Field(description="For programs: a word for the reason, which stays the same.")


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "message": "limit: Input should be less than or equal to 1000",
                        "type": "invalid_request_error",
                        "param": "limit",
                        "code": "invalid_value",
                    }
                }
            ]
        },
    )

    error: ErrorDetail


def failures(*statuses: int) -> Answers:
    """What a route declares as its `responses`: these statuses, each with the body of a refusal."""
    responses: Answers = {}
    for status in statuses:
        responses[status] = {"model": ErrorBody, "description": _MEANINGS.get(status, HTTPStatus(status).phrase)}
        if status in {429, 503}:
            schema = {"type": "integer", "minimum": 0, "maximum": LARGEST}
            responses[status]["headers"] = {"Retry-After": {"description": "Seconds until then.", "schema": schema}}
    return responses
