"""What the operator API tells of statements. What one says and how it is checked is the business of `rewards`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from deployment.schemas.fields import Count, Digits, Moment, Whole

_MONEY: dict[str, JsonValue] = {
    "gross": "500000",
    "carried_in": "0",
    "released_holdback": "0",
    "released_hold": "0",
    "drawn_holdback": "0",
    "recovered": "0",
    "clawback": "0",
    "holdback": "50000",
    "held": "0",
    "payout": "450000",
    "carried_out": "0",
}
_NOTE = "hospital-net/ledger\n9\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n\n— hospital-net/ledger …\n"
STATEMENT_EXAMPLE: dict[str, JsonValue] = {
    "schema": "protoken.statement/2",
    "consortium": "hospital-net",
    "client": "clinic",
    "name": "A clinic",
    "period": "2026-11",
    "ordinal": 1,
    "state": "final",
    "window": {"after": 0, "up_to": 2},
    "until_us": 1790000000000000,
    "closed_at_us": 1790000000000000,
    "final_at_us": 1790000000000000,
    "moves": [{"state": "final", "at_us": 1790000000000000, "actor": "0123456789ab"}],
    "tokens": "6",
    "currency": "EUR",
    "minor_digits": 2,
    "pool": "1000000",
    "fee": "0",
    "distributable": "1000000",
    "settlement_sha256": "ab" * 32,
    "receipts": 2,
    "credit": "3000000",
    "late_credit": "0",
    "held_credit": "0",
    "share": "1/2",
    "money": _MONEY,
    "held_total": "0",
    "holdbacks": [{"released_in": 4, "amount": "50000"}],
    "residue": "0",
    "standing": [],
    "event": {
        "sequence": 7,
        "kind": "statement",
        "subject": "2026-11/clinic",
        "at_us": 1790000000000000,
        "actor": "0123456789ab",
        "salt": "ef" * 32,
        "once": "statement:2026-11/clinic",
    },
    "log": {"leaf_index": 8, "size": 9, "hashes": ["q6s="], "checkpoint": _NOTE},
    "signature": {"algorithm": "Ed25519", "key_id": "6334b54c", "key_name": "hospital-net/ledger", "value": "q6s="},
}


_SAMPLING: dict[str, JsonValue] = {
    "responses": 20,
    "measured_responses": 2,
    "pending_credit": "5400000",
    "settled_credit": "2700000",
    "standard_error": "0.031622776602",
    "untold_credit": "0",
}


class StatementPart(BaseModel):
    """What every part of a statement is built on: nothing that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Money(StatementPart):
    """The lines of a statement in minor units, as decimal text: up to `recovered` they sum to what the others do."""

    gross: Whole = Field(description="The part of what is distributable, in whole units.")
    carried_in: Whole = Field(description="Carried over from the period before; negative: owed.")
    released_holdback: Whole
    released_hold: Whole
    drawn_holdback: Whole = Field(description="Holdback used against a debt.")
    recovered: Whole | None = Field(None, description="Its part of what others gave back. Absent in schema 1.")
    clawback: Whole = Field(description="Taken back for reversed responses.")
    holdback: Whole = Field(description="Kept back for a later period.")
    held: Whole = Field(description="Withheld by a hold.")
    payout: Whole
    carried_out: Whole = Field(description="Carried to the next period; negative: owed.")


class Holdback(StatementPart):
    """What is kept back, and until when."""

    released_in: Count = Field(description="Ordinal of the period.")
    amount: Whole


class Window(StatementPart):
    """Receipts with after < sequence ≤ up_to."""

    after: Count
    up_to: Count


class StandingMoney(StatementPart):
    """What stands for the client in a currency that the period was not settled in; nothing is converted."""

    currency: str
    minor_digits: Digits
    residue: Whole
    carry: Whole = Field(description="Carried on; negative: owed.")
    held: Whole = Field(description="Withheld by a hold.")
    holdbacks: list[Holdback]
    clawback: Whole = Field(description="To be taken back when a period is settled in this currency.")


class Sampling(StatementPart):
    """What of the period was measured, and what that leaves open of the client's share of all credit."""

    responses: Count = Field(description="Responses of bundles of which a part was measured.")
    measured_responses: Count
    pending_credit: Whole = Field(description="Credit of those that were not, which those that were divide.")
    settled_credit: Whole = Field(description="The client's part of it; in `credit` already.")
    standard_error: str = Field(
        description="Standard error of the client's share of the period's credit, `credit` / (`tokens` * 1 000 000)."
    )
    untold_credit: Whole = Field(description="Pending credit of which no error can be told.")


class PeriodMove(StatementPart):
    """A move of the period up to its being final."""

    state: Literal["draft", "disputed", "final"]
    at_us: Moment
    actor: str


class StatementEvent(StatementPart):
    """What else the leaf in the log is made of, beside the statement's body."""

    sequence: Count
    kind: Literal["statement"]
    subject: str
    at_us: Moment
    actor: str
    salt: str
    once: str


class LogPlace(StatementPart):
    """That the leaf is under a signed checkpoint."""

    leaf_index: Count
    size: Count
    hashes: list[str] = Field(description="The path from the leaf to the root (RFC 9162), base64.")
    checkpoint: str


class Signature(StatementPart):
    """Over the RFC 8785 form of all other fields."""

    algorithm: Literal["Ed25519"]
    key_id: str
    key_name: str
    value: str = Field(description="base64.")


class StatementBase(StatementPart):
    """What every schema of statements has."""

    consortium: str
    client: str
    name: str
    period: str
    ordinal: Count
    state: Literal["final"]
    window: Window
    until_us: Moment
    closed_at_us: Moment
    final_at_us: Moment
    moves: list[PeriodMove]
    tokens: Whole = Field(description="Of the period in all.")
    currency: str
    minor_digits: Digits
    pool: Whole
    fee: Whole
    distributable: Whole
    settlement_sha256: str
    receipts: Count = Field(description="Receipts of the period that credit the client.")
    credit: Whole = Field(description="Net micro-credits in the period.")
    late_credit: Whole
    held_credit: Whole
    money: Money
    held_total: Whole
    holdbacks: list[Holdback]
    residue: Whole = Field(description="Trillionths of a minor unit that rounding still owes to the client.")
    event: StatementEvent
    log: LogPlace
    signature: Signature


class Statement(StatementBase):
    """What a client was told of a final period before statements explained themselves."""

    model_config = ConfigDict(serialize_by_alias=True, json_schema_extra={"examples": [STATEMENT_EXAMPLE]})

    schema_: Literal["protoken.statement/1", "protoken.statement/2", "protoken.statement/3"] = Field(
        alias="schema",
        description="1 for periods of the first rule of settlement, which recovered for the commons; 3 for those in "
        "which not every response was measured.",
    )
    share: str = Field(description='Exact part of what is distributable, "numerator/denominator".')
    standing: list[StandingMoney] | None = Field(
        None, description="What stands in other currencies until a period is settled in them. Absent in schema 1."
    )


class SampledStatement(Statement):
    """The statement of a period of whose responses a part was measured."""

    model_config = ConfigDict(
        serialize_by_alias=True,
        json_schema_extra={"examples": [STATEMENT_EXAMPLE | {"schema": "protoken.statement/3", "sampling": _SAMPLING}]},
    )

    sampling: Sampling


class StatementEntry(StatementPart):
    """A statement that can be fetched."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "statement_entry",
                    "period": "2026-11",
                    "client": "clinic",
                    "name": "A clinic",
                    "written_at_us": 1790000000000000,
                    "payout": "500000",
                    "currency": "EUR",
                    "minor_digits": 2,
                }
            ]
        }
    )

    object: Literal["statement_entry"] = "statement_entry"
    period: str
    client: str
    name: str = Field(description="The client's display name.")
    written_at_us: Moment = Field(description="When its period became final.")
    payout: Whole = Field(description="Minor units, as decimal text as in the statement.")
    currency: str
    minor_digits: Digits
