"""What the operator API takes and tells of periods and their settlements."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, WithJsonSchema

from deployment.schemas.bases import Answer, Request
from deployment.schemas.fields import Count, Digits, Document, Moment, Reason, Whole
from deployment.schemas.strata import SAMPLING_EXAMPLE, Sampling
from rewards.files.strict_json import JsonObject
from rewards.settlement.policy_file import policy_schema

_OF_EVERYBODY = "Null for a member's key: it speaks of everybody."
_POLICY: dict[str, JsonValue] = {"currency": "EUR", "pool": 1_000_000}
_LINE: dict[str, JsonValue] = {
    "account": "clinic",
    "credit": "3000000",
    "late": "0",
    "held_credit": "0",
    "share": "1/2",
    "residue": "0",
    "gross": "500000",
    "carried_in": "0",
    "released_holdback": "0",
    "released_hold": "0",
    "drawn_holdback": "0",
    "recovered": "0",
    "clawback": "0",
    "holdback": "0",
    "held": "0",
    "payout": "500000",
    "carried_out": "0",
    "held_total": "0",
    "holdbacks": [],
}
_SETTLEMENT: dict[str, JsonValue] = {
    "period": "2026-11",
    "ordinal": 1,
    "window": {"after": 0, "up_to": 2},
    "tokens": "6",
    "policy": _POLICY,
    "pool": "1000000",
    "fee": "0",
    "distributable": "1000000",
    "lines": [_LINE],
    "unclaimed": False,
    "rule": 2,
    "pool_fraction": "0",
    "fee_fraction": "0",
    "standing": [],
    "sha256": "ab" * 32,
}
_PERIOD: dict[str, JsonValue] = {
    "object": "period",
    "name": "2026-11",
    "ordinal": 1,
    "state": "final",
    "until_us": 1790000000000000,
    "closed_at_us": 1790000000000000,
    "currency": "EUR",
    "minor_digits": 2,
    "pool": "1000000",
    "fee": "0",
    "distributable": "1000000",
    "settlement_sha256": "ab" * 32,
    "own": None,
    "moves": [{"state": "draft", "at_us": 1790000000000000, "actor": "0123456789ab", "note": None}],
    "deferred": 0,
    "left_out": 0,
    "taken_in": 0,
    "settlement": _SETTLEMENT,
}


_Expected = Annotated[
    str | None,
    Field(
        pattern="^[0-9a-f]{64}$",
        description="`sha256` of the settlement that a preview showed: where it comes to another by now, it is 409 and "
        "nothing is written. Null takes whatever it comes to.",
    ),
]


class Holdback(Answer):
    """What is kept back of an account's gross."""

    released_in: Count = Field(description="Ordinal of the period in which it falls due.")
    amount: Whole


class Window(Answer):
    """Receipts with after < sequence ≤ up_to."""

    after: Count
    up_to: Count


class Line(Answer):
    """What one account gets and why: credit in micro-credits and money in minor units."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LINE]})

    account: str
    credit: Whole = Field(description="Net credit in the period; may be negative.")
    late: Whole = Field(description="The part of it that is of responses made before the previous period ended.")
    held_credit: Whole = Field(description="Credit left out because of holds on responses.")
    share: str = Field(description='Part: exactly what of the distributable is due, "numerator/denominator".')
    residue: Whole = Field(description="Trillionths of a minor unit that rounding still owes to the account.")
    gross: Whole = Field(description="The part in whole minor units.")
    carried_in: Whole = Field(description="Carried over from the period before; negative: owed.")
    released_holdback: Whole
    released_hold: Whole
    drawn_holdback: Whole
    recovered: Whole = Field(
        description="What clients gave back in this period, where it comes to this account: to the commons, or under "
        "`commons: distribute` to clients who gave nothing back."
    )
    clawback: Whole = Field(description="What is taken back for reversed responses.")
    holdback: Whole = Field(description="Part of the gross that is kept back from now on.")
    held: Whole = Field(description="What would be paid, but for a hold on the client.")
    payout: Whole
    carried_out: Whole = Field(description="Carried to the next period; negative: owed.")
    held_total: Whole
    holdbacks: list[Holdback] = Field(description="All that is kept back, and in which period it is released.")


class StandingBalance(Answer):
    """What one account carries in a currency that the period was not settled in."""

    account: str
    residue: Whole
    carry: Whole = Field(description="Carried on; negative: owed.")
    held: Whole
    holdbacks: list[Holdback]
    clawback: Whole = Field(description="To be taken back when a period is settled in this currency.")


class Standing(Answer):
    """What stands in another currency until a period is settled in it. Nothing is converted."""

    currency: str
    minor_digits: Digits
    pool_fraction: Whole
    fee_fraction: Whole
    balances: list[StandingBalance]


class Settlement(Answer):
    """A settlement whole.

    `sha256` is of the canonical JSON (RFC 8785) of the `settlement` in the event `period.final`, or `period.draft`: the
    same without `sha256`, with tokens and money as numbers.

    One of the first rule has no `rule`, `pool_fraction`, `fee_fraction` and `standing`: they are null here.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_SETTLEMENT]})

    period: str
    ordinal: Count
    window: Window
    tokens: Whole = Field(description="Generated tokens, less those reversed.")
    policy: Document
    pool: Whole
    fee: Whole
    distributable: Whole
    lines: list[Line]
    unclaimed: bool = Field(description="No client had credit that is paid: the commons has everything distributable.")
    rule: Count | None = Field(None, description="By which rule of settlement.")
    pool_fraction: Whole | None = Field(
        None, description="Trillionths of a minor unit by which pools so far were rounded down; carried on."
    )
    fee_fraction: Whole | None = Field(None, description="The same of fees.")
    standing: list[Standing] | None = Field(None, description="What stands in other currencies.")
    sha256: str


class SampledSettlement(Settlement):
    """The settlement of a period of whose responses a part was measured."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SETTLEMENT | {"sampling": SAMPLING_EXAMPLE}]})

    sampling: Sampling


def settlement_answer(document: JsonObject) -> Settlement:
    """A settlement's document, with its `sha256`, as it is told."""
    return (SampledSettlement if "sampling" in document else Settlement).model_validate(document)


class Move(Answer):
    """A move of a period from one state to another."""

    state: Literal["draft", "disputed", "final", "paid"]
    at_us: Moment
    actor: str = Field(description='A key id, or "command line".')
    note: str | None = Field(description="The reason or the payment's reference. Null for a member's key.")


class Period(Answer):
    """A closed period as it stands. Everybody sees the sums; a member's key sees its own line alone."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PERIOD]})

    object: Literal["period"] = "period"
    name: str
    ordinal: Count = Field(description="1 for the first period of the ledger.")
    state: Literal["draft", "disputed", "final", "paid"]
    until_us: Moment = Field(description="What was made at or after this moment is the next period's.")
    closed_at_us: Moment
    currency: str
    minor_digits: Digits
    pool: Whole = Field(description="Minor units in all.")
    fee: Whole = Field(description="Minor units for whoever runs the service.")
    distributable: Whole
    settlement_sha256: str
    own: Line | None = Field(description="The line of the member whose key asks; null for other keys.")
    moves: list[Move]
    deferred: Count | None = Field(description=f"Receipts that count in the next period. {_OF_EVERYBODY}")
    left_out: Count | None = Field(description=f"Responses left out as they are held. {_OF_EVERYBODY}")
    taken_in: Count | None = Field(description=f"Responses of earlier periods that count here. {_OF_EVERYBODY}")
    settlement: SampledSettlement | Settlement | None = Field(
        description=f"The final one; the draft while there is none. {_OF_EVERYBODY}"
    )


class Preview(Answer):
    """What a close, or of a draft the finalising, would settle at this moment."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "preview",
                    "settlement": _SETTLEMENT,
                    "compared_with": "draft of 2026-11",
                    "difference": {"bank": "-200", "clinic": "200", "commons": "0"},
                }
            ]
        }
    )

    object: Literal["preview"] = "preview"
    settlement: SampledSettlement | Settlement
    compared_with: str | None = Field(description="Null where there is nothing to compare with.")
    difference: dict[str, Whole] = Field(description="Account to minor units that its payout is above that.")


class Terms(Request):
    """How to settle a period."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"policy": _POLICY, "until_us": None}]}
    )

    policy: Annotated[
        JsonObject | None,
        WithJsonSchema({"anyOf": [policy_schema(), {"type": "null"}]}),
        Field(description="What to settle by; null takes the policy file of the service."),
    ] = None
    until_us: Moment | None = Field(None, description="The end of the period; this moment without it.")


class Close(Terms):
    """How to settle a period, and what that must come to."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"policy": _POLICY, "until_us": None, "expected_sha256": None}]},
    )

    expected_sha256: _Expected = None


class Finalise(Request):
    """What a draft must come to with the holds of this moment."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"expected_sha256": "ab" * 32}]}
    )

    expected_sha256: _Expected = None


class Dispute(Request):
    """Why a draft is disputed."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"reason": "the bank objects to its credit"}]}
    )

    reason: Reason


class Payment(Request):
    """By which a payment is found elsewhere."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"reference": "SEPA 4711"}]})

    reference: Reason = Field(description="As in a bank's number.")
