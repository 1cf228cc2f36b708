"""What the operator API takes and tells of trust: the Merkle log with its proofs, and bearer keys."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from deployment.schemas.fields import Count, Moment, Name

__all__ = [
    "BearerKey",
    "Checkpoint",
    "Consistency",
    "Inclusion",
    "NewKey",
    "NewKeyRequest",
    "ReceiptProof",
    "VerifyKey",
]

_MOST = 2**53 - 1
_NOTE = "hospital-net/ledger\n3\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n\n— hospital-net/ledger …\n"
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
    "token_budget": 1_000_000,
    "requests_per_minute": 60,
}


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Checkpoint(_Answer):
    """A signed root of the log: whoever keeps its note sees if history is ever rewritten."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "checkpoint",
                    "origin": "hospital-net/ledger",
                    "size": 3,
                    "root": "ab" * 32,
                    "key_id": "6334b54c",
                    "sealed_at_us": 1790000000000000,
                    "note": _NOTE,
                }
            ]
        }
    )

    object: Literal["checkpoint"] = "checkpoint"
    origin: str = Field(description="The log's name, for ever.")
    size: Count = Field(description="How many leaves it covers.")
    root: str = Field(description="64 hex digits.")
    key_id: str
    sealed_at_us: Moment
    note: str = Field(description="The checkpoint as a signed note (C2SP tlog-checkpoint), to keep.")


class VerifyKey(_Answer):
    """A public key that the books name as theirs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"object": "verify_key", "name": "hospital-net/ledger", "key_id": "6334b54c", "public": "…"}]
        }
    )

    object: Literal["verify_key"] = "verify_key"
    name: str
    key_id: str
    public: str = Field(description="As `--public-key` files have it: name+key id+base64 (C2SP signed-note).")


class Inclusion(_Answer):
    """That a receipt or event is under a signed checkpoint."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"leaf_index": 1, "size": 3, "hashes": ["q6s="], "checkpoint": _NOTE}]}
    )

    leaf_index: Count
    size: Count
    hashes: list[str] = Field(description="The path from the leaf to the root (RFC 9162), base64.")
    checkpoint: str


class Consistency(_Answer):
    """That the log of `second` leaves only added to the one of `first`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"proof": "consistency", "first": 1, "second": 3, "hashes": ["q6s="], "checkpoint": _NOTE}]
        }
    )

    proof: Literal["consistency"]
    first: Count
    second: Count
    hashes: list[str]
    checkpoint: str = Field(description="The signed note of the second.")


class ReceiptProof(_Answer):
    """That a client's entry of a response is in the books that were signed; shows nothing of other clients."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "proof": "receipt",
                    "opening": {"head": {"response_id": "cmpl-7"}, "entry": {"account": "bank", "amount": 750_000}},
                    "inclusion": {"leaf_index": 1, "size": 3, "hashes": ["q6s="]},
                    "checkpoint": _NOTE,
                }
            ]
        }
    )

    proof: Literal["receipt"]
    opening: dict[str, Any] = Field(description="What rebuilds the leaf; `protoken ledger check-proof` does.")
    inclusion: dict[str, Any]
    checkpoint: str


class BearerKey(_Answer):
    """A bearer key without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    object: Literal["key"] = "key"
    id: str
    role: Literal["application", "member", "operator", "auditor", "admin"]
    label: str
    client: str | None = Field(description="Whose view a member's key has.")
    state: Literal["valid", "expired", "revoked"]
    created_at_us: Moment
    expires_at_us: Moment | None
    revoked_at_us: Moment | None
    last_used_at_us: Moment | None = Field(description="To the minute.")
    rotated_from: str | None = Field(description="The key in whose place this one came.")
    token_budget: Count | None
    requests_per_minute: Count | None


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
                }
            ]
        },
    )

    role: Literal["application", "member", "operator", "auditor", "admin"]
    label: Name = Field(description="What it is for: 1 to 100 printable characters.", max_length=100)
    client: Name | None = Field(None, description="Whose view a member's key has; a registered client.")
    expires_at_us: int | None = Field(None, ge=1, le=_MOST, description="From when on it is refused; null for never.")
    token_budget: int | None = Field(None, ge=0, le=_MOST, description="Tokens that an application may generate.")
    requests_per_minute: int | None = Field(None, ge=1, le=_MOST, description="How fast an application may ask.")
