"""What an application gets back: typed models of the parts that carry attribution, usage and models.

The envelopes around them (chat or text, whole or streamed) are put together in `gateway.envelopes`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployment.schemas.fields import Count, Document, Whole


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


class ClientShare(_Response):
    """A client's part in one token: `share` of its credit (≥ 0) and the signed `score` it was derived from."""

    client: str
    share: float
    score: float


class TokenAttribution(_Response):
    """One generated token. The shares of the clients and `base_share` sum to 1.

    `index` counts from 0 over the response: openai-python joins streamed lists by it. `bytes` are the UTF-8
    bytes of `token`, as in OpenAI's logprobs.
    """

    index: Count
    token: str
    token_id: Count
    bytes: list[Count]
    clients: list[ClientShare]
    base_share: float


class UsageAttribution(_Response):
    """The credit of a whole response, as booked: micro-credits as decimal text, which sum to tokens * 1 000 000."""

    receipt_id: str
    method: str
    shares: dict[str, float]
    base_share: float
    credit: dict[str, Whole]
    completeness_error: float | None


class Attribution(_Response):
    """The booked credit of a response, for the application that asked for it."""

    id: str
    object: Literal["attribution"] = "attribution"
    created: Count = Field(description="Seconds since 1970, UTC.")
    receipt_id: str
    model: str
    model_sha256: str
    method: str
    settings: Document
    version: str
    tokens: Whole
    shares: dict[str, float]
    base_share: float
    credit: dict[str, Whole] = Field(description="Account to micro-credits; they sum to `tokens` * 1 000 000.")
    measurement: Document


class PendingAttribution(_Response):
    """A response whose tokens are safe and whose credit is not booked yet: ask again after `Retry-After` seconds."""

    id: str
    object: Literal["attribution.pending"] = "attribution.pending"


class Usage(_Response):
    """Counts of tokens, which the model's context bounds, and the attribution when it was asked for."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    attribution: UsageAttribution | None = None


class ModelObject(_Response):
    """One served model: a consortium, with the hash of its global weights and the ids of its clients."""

    id: str
    object: Literal["model"] = "model"
    created: Count = Field(description="Seconds since 1970, UTC.")
    owned_by: str = "consortium"
    global_sha256: str
    clients: list[str]
    context_length: Count


class ModelList(_Response):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
