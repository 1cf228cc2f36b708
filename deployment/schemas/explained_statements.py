"""What a client is told of a final period since statements explain themselves: the fourth schema."""

from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from deployment.schemas.fields import Digits, Document, Whole
from deployment.schemas.statements import STATEMENT_EXAMPLE, Sampling, StandingMoney, StatementBase, StatementPart

_EXAMPLE: dict[str, JsonValue] = STATEMENT_EXAMPLE | {
    "schema": "protoken.statement/4",
    "share": {"numerator": "3000000", "denominator": "6000000", "of": "all credit of the period, …"},
    "part": {"numerator": "1", "denominator": "2", "of": "what is distributable, …"},
    "policy": {"currency": "EUR", "pool": 1_000_000, "holdback_percent": "10"},
    "cap_percent": "100",
    "clawbacks": [{"period": "2026-10", "currency": "EUR", "minor_digits": 2, "amount": "1200"}],
    "reversed": [{"response_id": "cmpl-7", "period": "2026-10", "credit": "3000000"}],
    "rounding": {
        "pool": "a price is rounded down, and the rest carried",
        "fee": "rounded down, and the rest carried",
        "part": "largest remainder, in trillionths of a minor unit",
        "gross": "largest remainder, with what earlier periods' rounding owes",
        "holdback": "rounded down",
    },
    "sampling": None,
}


class Portion(StatementPart):
    """A fraction, and what it is a fraction of."""

    numerator: Whole
    denominator: Whole
    of: str


class PeriodClawback(StatementPart):
    """What is taken back of an earlier period, in its currency."""

    period: str
    currency: str
    minor_digits: Digits
    amount: Whole


class ReversedResponse(StatementPart):
    """A response whose credit was taken back in this period."""

    response_id: str
    period: str = Field(description="In which it had counted; of this one its credit is netted out.")
    credit: Whole = Field(description="Micro-credits that the client had of it.")


class Rounding(StatementPart):
    """By which rule what is rounded."""

    pool: str
    fee: str
    part: str
    gross: str
    holdback: str


class ExplainedStatement(StatementBase):
    """What a client is told of a final period. Credit, tokens and money are decimal text: no reader may round them."""

    model_config = ConfigDict(serialize_by_alias=True, json_schema_extra={"examples": [_EXAMPLE]})

    schema_: Literal["protoken.statement/4"] = Field(alias="schema")
    share: Portion = Field(description="The client's credit, of all credit of the period.")
    part: Portion = Field(description="Exact part of what is distributable; earlier schemas call it `share`.")
    policy: Document = Field(description="What it was settled by, without what it says of others.")
    cap_percent: str = Field(description="The client's own cap.")
    clawbacks: list[PeriodClawback]
    reversed: list[ReversedResponse] = Field(description="Those with credit of the client, in the order of reversal.")
    rounding: Rounding
    standing: list[StandingMoney]
    sampling: Sampling | None = Field(description="Null where every response was measured.")
