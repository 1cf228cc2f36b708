"""What the operator API takes and tells of bearer keys."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from deployment.schemas.bases import Answer
from deployment.schemas.fields import LARGEST, Count, Moment, Name
from rewards.keys.ring import OVERLAP_S
from rewards.keys.rules import Role

_YEAR_S = 366 * 24 * 60 * 60
_KEY: dict[str, JsonValue] = {
    "object": "key",
    "id": "0123456789ab",
    "role": "application",
    "label": "shop",
    "client": None,
    "state": "valid",
    "created_at_us": 1790000000000000,
    "expires_at_us": None,
    "revoked_at_us": None,
    "last_used_at_us": None,
    "rotated_from": None,
    "identity": "0123456789ab",
    "token_budget": 1_000_000,
    "requests_per_minute": 60,
    "concurrency": 8,
    "weight": None,
}


class BearerKey(Answer):
    """A bearer key without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    object: Literal["key"] = "key"
    id: str
    role: Role
    label: str
    client: str | None = Field(description="Whose view a member's key has.")
    state: Literal["valid", "expired", "revoked"]
    created_at_us: Moment
    expires_at_us: Moment | None
    revoked_at_us: Moment | None
    last_used_at_us: Moment | None = Field(description="To the minute.")
    rotated_from: str | None = Field(description="The key in whose place this one came.")
    identity: str = Field(
        description="The first key of its rotations. Receipts, claims, budgets and limits are this one's, so that they "
        "outlive a key; policies name it under `fees`."
    )
    token_budget: Count | None
    requests_per_minute: Count | None
    concurrency: Count | None
    weight: Count | None


class NewKey(BearerKey):
    """A key that was just made, with its secret: shown this once, since only a hash of it is kept."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_KEY, "key": "ptk_0123456789ab_…"}]})

    key: str


class NewKeyRequest(BaseModel):
    """What a key is to be for."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "role": "application",
                    "label": "shop",
                    "client": None,
                    "expires_at_us": None,
                    "token_budget": 1_000_000,
                    "requests_per_minute": 60,
                    "concurrency": 8,
                    "weight": None,
                }
            ]
        },
    )

    role: Role
    label: Name = Field(description="What it is for: 1 to 100 printable characters.", max_length=100)
    client: Name | None = Field(None, description="Whose view a member's key has; a registered client.")
    expires_at_us: int | None = Field(None, ge=1, le=LARGEST, description="From when on it is refused; null for never.")
    token_budget: int | None = Field(None, ge=0, le=LARGEST, description="Tokens that an application may generate.")
    requests_per_minute: int | None = Field(None, ge=1, le=LARGEST, description="How fast an application may ask.")
    concurrency: int | None = Field(
        None, ge=1, le=LARGEST, description="How many responses an application may have under way at once."
    )
    weight: int | None = Field(
        None, ge=1, le=LARGEST, description="How much an application gets of a busy service; others have 1."
    )


class Rotation(BaseModel):
    """How a key gives way to the one in its place."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_extra={"examples": [{"overlap_s": 3600}]}
    )

    overlap_s: int = Field(OVERLAP_S, ge=0, le=_YEAR_S, description="Seconds for which the old key still works.")
