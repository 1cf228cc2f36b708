"""What the operator API tells of responses of which a part was measured, and how the others were settled."""

from pydantic import Field, JsonValue

from deployment.schemas.bases import Answer
from deployment.schemas.fields import Count, Whole

SAMPLING_EXAMPLE: dict[str, JsonValue] = {
    "strata": [
        {
            "consortium": "demo",
            "model_sha256": "ab" * 32,
            "fraction": "0.1",
            "application": None,
            "measured": 2,
            "measured_credit": "600000",
            "pending": 18,
            "pending_credit": "5400000",
        }
    ],
    "settled": {"clinic": "2700000", "commons": "2700000"},
    "standard_errors": {"clinic": "0.031622776602"},
    "untold_credit": "0",
    "late_credit": "0",
    "held_credit": "0",
}


class Stratum(Answer):
    """The sampled responses of one bundle and fraction, and under `user_centric` of one application."""

    consortium: str
    model_sha256: str
    fraction: str = Field(description="The credit fraction by which each of them was measured or not.")
    application: str | None = Field(None, description="Where each application's fee is divided by its own responses.")
    measured: Count = Field(description="Responses that were measured.")
    measured_credit: Whole
    pending: Count = Field(description="Responses that were not.")
    pending_credit: Whole = Field(description="What is divided in the proportions of the measured credit.")


class Sampling(Answer):
    """How what was not measured was settled, and what that leaves open."""

    strata: list[Stratum] = Field(description="Those in which something was pending.")
    settled: dict[str, Whole] = Field(description="Account to micro-credits that it has of what was pending.")
    standard_errors: dict[str, str] = Field(
        description="Account to the standard error of its share of the period's credit, as decimal text."
    )
    untold_credit: Whole = Field(description="Pending credit of strata with fewer than two measured responses.")
    late_credit: Whole = Field(description="The part of it that is of responses made before the previous period ended.")
    held_credit: Whole = Field(description="Pending credit left out because of holds; not settled.")
