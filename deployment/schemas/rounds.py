"""What the operator API tells of rounds of training: which was published when, and who contributed what to it."""

from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from deployment.schemas.bases import Answer
from deployment.schemas.fields import Count, Moment

_PUBLICATION: dict[str, JsonValue] = {
    "object": "publication",
    "id": 12,
    "consortium": "hospital-net",
    "round": 2,
    "model_sha256": "ab" * 32,
    "manifest_sha256": "cd" * 32,
    "bundle": "/srv/bundles/round-2",
    "published_at_us": 1790000000000000,
    "published_by": "command line",
    "withdrawn_at_us": None,
    "withdrawn_by": None,
    "served_since_us": 1790000000000000,
}
_UPDATE: dict[str, JsonValue] = {
    "client": "clinic",
    "weight": 0.75,
    "norm": 1.25,
    "sha256": "ef" * 32,
    "signature": "holds",
    "problem": None,
    "has_receipt": True,
}
_ROUND: dict[str, JsonValue] = {
    "round": 2,
    "before_sha256": "12" * 32,
    "after_sha256": "34" * 32,
    "residual_norm": 0.02,
    "residual_ratio": 0.016,
    "updates": [_UPDATE],
    "missing": [{"client": "bank", "node": "17", "reason": "lost its connection"}],
}


class Publication(Answer):
    """A bundle that was put in service."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PUBLICATION]})

    object: Literal["publication"] = "publication"
    id: Count = Field(description="The number of its event.")
    consortium: str
    round: Count = Field(description="The last round of federated training that is in it.")
    model_sha256: str = Field(description="The hash of its global model, by which receipts name it.")
    manifest_sha256: str
    bundle: str | None = Field(description="Its folder when it was published. Null for a member's key.")
    published_at_us: Moment
    published_by: str = Field(description='"service" for what a service was set to serve, else "command line".')
    withdrawn_at_us: Moment | None = Field(description="When it was taken back; null where it was not.")
    withdrawn_by: str | None
    served_since_us: Moment | None = Field(
        description="Since when it is the one to be served; null where another one is."
    )


class RoundUpdate(Answer):
    """What one client sent in a round."""

    client: str
    weight: float = Field(description="Its part of the round; those of all its updates sum to 1.")
    norm: float = Field(description="Frobenius norm of what it changed, unweighted.")
    sha256: str = Field(description="Of the tensors as they were sent.")
    signature: Literal["holds", "none", "fails"] = Field(
        description="Whether the client signed exactly this; `none` where it has no key to sign with."
    )
    problem: str | None = Field(description="Why the signature fails.")
    has_receipt: bool = Field(
        description="Whether the aggregator's receipt is in the bundle; `protoken consortium verify` checks it."
    )


class RoundAbsence(Answer):
    """Who was asked in a round and sent nothing that counts."""

    client: str | None = Field(description="Null where it is not known whose node that was.")
    node: str | None
    reason: str


class Round(Answer):
    """One round as it was recorded."""

    round: Count
    before_sha256: str = Field(description="Of the global model that it began with.")
    after_sha256: str = Field(description="Of the one that it ended with.")
    residual_norm: float = Field(description="Of what the server did besides averaging, which is no client's.")
    residual_ratio: float | None = Field(
        description="That over the weighted mean of the clients' norms; null where no client changed anything, and for "
        "a member's key: it speaks of everybody."
    )
    updates: list[RoundUpdate] = Field(description="A member's key sees its own.")
    missing: list[RoundAbsence] = Field(description="Likewise.")


class RoundRecord(Answer):
    """What a published bundle records of its training."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "round_record",
                    "publication": _PUBLICATION,
                    "problem": None,
                    "recorded": 2,
                    "start_norm": 0.0,
                    "residual_norm": 0.03,
                    "defences": {"clip_to_median": True, "cap_counts": 2.0, "drop_duplicates": None},
                    "unsigned": {"bank": 1},
                    "absent": ["school"],
                    "rounds": [_ROUND],
                    "next_before": 2,
                }
            ]
        }
    )

    object: Literal["round_record"] = "round_record"
    publication: Publication
    problem: str | None = Field(
        description="Why the bundle cannot be read where it was published; all that follows is empty then."
    )
    recorded: Count | None = Field(description="How many rounds were recorded; null where none were.")
    start_norm: float | None = Field(description="Of what training began with beyond the base model.")
    residual_norm: float | None = Field(description="Of all that the bundle's updates do not explain: nobody's.")
    defences: dict[str, bool | float | None] | None = Field(description="The aggregator's; null where it had none.")
    unsigned: dict[str, Count] = Field(
        description="Client to how many of its updates carry no statement, in all rounds; a member sees its own."
    )
    absent: list[str] = Field(description="Clients that took part in no recorded round; a member sees itself.")
    rounds: list[Round] = Field(description="The last first.")
    next_before: Count | None = Field(
        description="For the rounds before these, as `before`; null where these are the first ones."
    )
