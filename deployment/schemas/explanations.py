"""What is told of a payout, a client's or the commons', when it is explained: every line of its arithmetic."""

from pydantic import ConfigDict, Field, JsonValue

from deployment.schemas.bases import Answer
from deployment.schemas.fields import Count, Digits, Whole
from rewards.settlement.explanation_lines import Unit

_STEPS: list[JsonValue] = [
    {
        "name": "pool",
        "label": "Pool",
        "amount": "1000000",
        "unit": "minor units",
        "formula": None,
        "note": "of the policy",
    },
    {
        "name": "distributable",
        "label": "To be shared",
        "amount": "975000",
        "unit": "minor units",
        "formula": "pool - fee",
        "note": "",
    },
]


class ExplanationStep(Answer):
    """One line: a figure of the settlement, or what a formula makes of lines before it."""

    name: str = Field(description="By which formulas of later lines name it.")
    label: str
    amount: Whole
    unit: Unit
    formula: str | None = Field(
        description="Over the names of lines before it, in integers: `//` rounds down; null where the settlement says "
        "the amount."
    )
    note: str = Field(description="The rule in words, or where the figure comes from.")


class ReversedCredit(Answer):
    """A response whose credit was taken back."""

    response_id: str
    period: str = Field(
        description="In which it had counted: where it is the period that is explained, its credit is netted out; of "
        "an earlier one, what it had added there is clawed back."
    )
    credit: Whole = Field(description="Micro-credits that the client had of it.")


class PayoutExplanation(Answer):
    """The payout of a client, or of the commons, in a closed period, line by line; the last one is the payout."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "object": "explanation",
                    "period": "2026-11",
                    "ordinal": 1,
                    "state": "final",
                    "client": "clinic",
                    "currency": "EUR",
                    "minor_digits": 2,
                    "settlement_sha256": "ab" * 32,
                    "steps": _STEPS,
                    "reversed": [{"response_id": "cmpl-7", "period": "2026-11", "credit": "3000000"}],
                }
            ]
        },
    )

    object: str = "explanation"
    period: str
    ordinal: Count
    state: str
    client: str = Field(description="Whose payout; `commons` is the commons'.")
    currency: str
    minor_digits: Digits
    settlement_sha256: str
    steps: list[ExplanationStep]
    reversed: list[ReversedCredit] = Field(description="Those whose reversals count in this period.")
