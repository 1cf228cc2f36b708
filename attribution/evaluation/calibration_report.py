"""The report of a calibration: how far what a bundle pays is from Shapley values, with all that it takes to repeat it.

Holds no prompt's text and no client's share, so that everybody may read it. Knows no model, and no ledger.
"""

import json
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import Field

from attribution.bundle.manifest import ConsortiumId, Sha256
from attribution.files.strict import StrictDocument

_LARGEST = 2**53 - 1  # what every reader of JSON keeps exact
_Count = Annotated[int, Field(ge=0, le=_LARGEST)]
_Some = Annotated[int, Field(ge=1, le=_LARGEST)]


class Measured(StrictDocument):
    """One figure."""

    value: float | None = Field(description="Null where nothing was measured.")
    n: _Count = Field(description="How many observations are behind it.")
    low: float | None = Field(None, description="Where its 95 % interval begins; null where it has none.")
    high: float | None = Field(None, description="Where that ends.")


class CalibrationFigures(StrictDocument):
    """What was found; distances are total variation, and of the clients' part of credit alone."""

    distance: Measured = Field(description="Mean distance of a response's shares from the true ones.")
    distance_p95: Measured = Field(description="The distance that 95 % of the responses do not exceed.")
    correlation: Measured = Field(description="Pearson's, over each client's share in each response.")
    completeness_error: Measured = Field(description="Mean part of the gain that the scores leave unexplained.")
    largest_difference: Measured = Field(description="Between given and true share of any client in any response.")
    settled_distance: Measured = Field(
        description="Distance of the shares of all responses summed by tokens, those of little gain too: what is paid."
    )
    small_gains_commons: Measured = Field(description="The commons' part of the credit of responses of little gain.")
    truth_error: Measured = Field(
        description="Mean distance that comes of sampling the truth, and not of the shares; null where it is exact."
    )


class CalibrationReport(StrictDocument):
    """What was asked of which bundle, what it was held against, and the figures."""

    consortium: ConsortiumId
    model_sha256: Sha256 = Field(description="Of the global model, by which receipts name it.")
    manifest_sha256: Sha256 = Field(description="Of the bundle's manifest, which names every update.")
    method: Literal["credit"]
    attribution_version: str = Field(description="Of the scores, as receipts name it.")
    tolerance: float = Field(ge=0)
    dtype: str = Field(description="In which responses were scored.")
    clients: _Some
    truth: Literal["exact", "permutations"]
    permutations: _Some | None = Field(description="Orders of joining that were sampled; null where it is exact.")
    prompts_sha256: Sha256 = Field(description="Of the file of prompts.")
    max_new_tokens: _Some = Field(description="The most tokens of a response that the model was asked for.")
    responses: _Some
    least_gain: float = Field(description="Responses that gained no more than so many nats are not compared.")
    small_gains: _Count = Field(description="How many these were.")
    without_shares: _Count = Field(
        description="How many gained more, and have no client with a positive score: not compared either."
    )
    figures: CalibrationFigures
    version: str = Field(description="Of protoken.")
    finished: str = Field(description="When, in UTC.")

    @property
    def compared_responses(self) -> int:
        """How many responses were held against the truth."""
        return self.figures.distance.n

    @property
    def identity(self) -> str:
        """SHA-256 of what was found, whenever that was: measured again, the same is the same."""
        document = self.model_dump(mode="json", exclude={"finished"})
        return sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode()).hexdigest()

    @property
    def truth_words(self) -> str:
        """What the shares were held against, in words."""
        if self.permutations is None:
            return f"exact Shapley values, over all {1 << self.clients:,} coalitions of the clients"
        return f"Shapley values sampled from {self.permutations:,} orders in which {self.clients:,} clients may join"

    @property
    def verdict(self) -> str:
        """What was found, in a sentence."""
        distance = self.figures.distance
        if distance.value is None:
            least = f"{self.least_gain:g} nat"
            return f"No response could be compared: none that credits a client gained more than {least} over the base."
        within = ""
        if distance.low is not None and distance.high is not None:
            within = f" (95 % interval: {_percent(distance.low)} to {_percent(distance.high)})"
        by = "by exact Shapley values" if self.permutations is None else "by sampled Shapley values"
        return (
            f"On average {_percent(distance.value)}{within} of a response's credit to clients would go to others {by}."
        )


def _percent(share: float) -> str:
    """A share as a percentage with one digit; what is more than nothing does not become 0."""
    return "less than 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"
