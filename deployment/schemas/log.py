"""What the operator API tells of the Merkle log: checkpoints, keys and proofs."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from deployment.schemas.bases import Answer
from deployment.schemas.fields import LARGEST, Count, Document, Moment

_NOTE = "hospital-net/ledger\n3\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n\n— hospital-net/ledger …\n"

Size = Annotated[int, Field(ge=1, le=LARGEST)]
"""How many leaves a checkpoint covers."""


class Checkpoint(Answer):
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


class VerifyKey(Answer):
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


class Inclusion(Answer):
    """That a receipt or event is under a signed checkpoint."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"leaf_index": 1, "size": 3, "hashes": ["q6s="], "checkpoint": _NOTE}]}
    )

    leaf_index: Count
    size: Count
    hashes: list[str] = Field(description="The path from the leaf to the root (RFC 9162), base64.")
    checkpoint: str


class Consistency(Answer):
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


class ReceiptProof(Answer):
    """That a client's entry of a response is in the books that were signed; shows nothing of other clients."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "proof": "receipt",
                    "opening": {"head": {"response_id": "cmpl-7"}, "entry": {"account": "bank", "amount": "750000"}},
                    "inclusion": {"leaf_index": 1, "size": 3, "hashes": ["q6s="]},
                    "checkpoint": _NOTE,
                }
            ]
        }
    )

    proof: Literal["receipt"]
    opening: Document = Field(description="What rebuilds the leaf; `protoken ledger check-proof` does.")
    inclusion: Document
    checkpoint: str
