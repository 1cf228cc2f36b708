"""From an attributed response to a receipt.

Here the words of `attribution` meet those of `rewards`. Computes no score and no split of its own.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from attribution.records import AttributedResponse
from deployment.replica.messages import ModelCard
from rewards.credit import Receipt, receipt_amounts


class ResponseOrigin(Protocol):
    """Who asked for a response, and when: what a job and the progress of one have in common."""

    @property
    def response_id(self) -> str:
        """Unique for ever."""

    @property
    def application(self) -> str:
        """Identity of the caller's key."""

    @property
    def created_at_us(self) -> int:
        """In microseconds since 1970."""


def receipt_of(
    origin: ResponseOrigin,
    card: ModelCard,
    response: AttributedResponse,
    duration_us: int,
    marks: Mapping[str, Any],
) -> Receipt:
    """The receipt of a response. `duration_us` runs from the moment the job was taken to its last token.

    `marks` goes into the measurement: how far a response came that was not finished, and how it was sampled.

    Raises:
        CreditError: the shares are not finite, or do not sum to 1 with the base share.
    """
    tokens = len(response.token_ids)
    return Receipt(
        response_id=origin.response_id,
        created_at_us=origin.created_at_us,
        application=origin.application,
        consortium=card.name,
        model_sha256=card.global_sha256,
        method=response.method,
        settings=response.settings,
        version=response.version,
        tokens=tokens,
        amounts=receipt_amounts(origin.response_id, tokens, response.shares, response.base_share),
        measurement={
            "response_scores": dict(response.response_scores),
            "base_share": response.base_share,
            "gain": response.gain,
            "completeness_error": response.completeness_error,
            **marks,
        },
        duration_us=duration_us,
    )
