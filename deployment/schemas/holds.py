"""What the operator API takes and tells of holds."""

from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from deployment.schemas.bases import Answer, Request
from deployment.schemas.fields import Moment, Name, Reason

_HOLD: dict[str, JsonValue] = {
    "object": "hold",
    "id": "hold-1",
    "kind": "client",
    "target": "bank",
    "reason": "its data are audited",
    "actor": "0123456789ab",
    "placed_at_us": 1790000000000000,
    "released_at_us": None,
}


class Hold(Answer):
    """What is not to be paid for the time being."""

    model_config = ConfigDict(json_schema_extra={"examples": [_HOLD]})

    object: Literal["hold"] = "hold"
    id: str
    kind: Literal["client", "response"]
    target: str
    reason: str
    actor: str = Field(description='Who placed it: a key id, or "command line".')
    placed_at_us: Moment
    released_at_us: Moment | None = Field(description="Null while it is active.")


class HoldRequest(Request):
    """What to hold, and why."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"kind": "client", "target": "bank", "reason": "its data are audited"}]},
    )

    kind: Literal["client", "response"]
    target: Name = Field(description="The id of a registered client, or of a booked response.")
    reason: Reason


class Release(Request):
    """Why a hold ends."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"reason": "the audit found nothing"}]}
    )

    reason: Reason
