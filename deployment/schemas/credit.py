"""What the operator API tells of credit: consortia, clients, shares, credit and entries."""

from typing import Literal

from pydantic import ConfigDict, Field

from deployment.schemas.bases import Answer
from deployment.schemas.fields import Count, Moment, Whole

_OF_EVERYBODY = "Null for a member's key: it speaks of everybody."


class Model(Answer):
    """A global model that answered."""

    model_sha256: str = Field(description="The hash of its weights.")
    receipts: Count | None = Field(description=f"Its responses and their reversals. {_OF_EVERYBODY}")
    tokens: Whole | None = Field(description=f"Its generated tokens, less those reversed. {_OF_EVERYBODY}")
    first_booked_at_us: Moment
    last_booked_at_us: Moment


class Consortium(Answer):
    """Members that trained models together."""

    object: Literal["consortium"] = "consortium"
    id: str = Field(description="Its name, which is also its model's name in `/v1/models`.")
    clients: list[str] = Field(description="Ids of its clients, in the order of registration; a member sees its own.")
    models: list[Model] = Field(description="The models that answered, in the order of their first response.")


class Consortia(Answer):
    """Every consortium of the ledger, and the ledger's own figures."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "consortia",
                    "data": [
                        {
                            "object": "consortium",
                            "id": "hospital-net",
                            "clients": ["clinic", "bank"],
                            "models": [
                                {
                                    "model_sha256": "ab" * 32,
                                    "receipts": 2,
                                    "tokens": "6",
                                    "first_booked_at_us": 1790000000000000,
                                    "last_booked_at_us": 1790000001000000,
                                }
                            ],
                        }
                    ],
                    "receipts": 2,
                    "tokens": "6",
                    "periods": 1,
                    "last_period": "2026-10",
                }
            ]
        }
    )

    object: Literal["consortia"] = "consortia"
    data: list[Consortium]
    receipts: Count | None = Field(description=f"Every receipt of the ledger. {_OF_EVERYBODY}")
    tokens: Whole | None = Field(description=f"Every token, less those reversed. {_OF_EVERYBODY}")
    periods: Count = Field(description="Closed periods.")
    last_period: str | None = Field(description="The last closed period.")


class Client(Answer):
    """A member organisation, and all credit it ever got."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"object": "client", "id": "bank", "name": "A bank", "consortia": ["hospital-net"], "credit": "1500000"}
            ]
        }
    )

    object: Literal["client"] = "client"
    id: str
    name: str = Field(description="Its display name, as registered first.")
    consortia: list[str]
    credit: Whole = Field(description="Micro-credits of all time.")


class AccountShare(Answer):
    """An account's part of the credit of some receipts."""

    account: str = Field(
        description="A client's id, `commons`, or `pending`: credit of responses that were not measured."
    )
    credit: Whole
    share: float = Field(description="Of all credit of these receipts; for reading: money is computed from integers.")


class SampledShare(AccountShare):
    """The same in a closed period of whose responses a part was measured."""

    settled_credit: Whole = Field(description="What it has of what was pending.")
    standard_error: str = Field(
        description="Standard error of its share of the period's credit, `settled_credit` included, that comes of "
        "measuring a part; decimal text."
    )


class Window(Answer):
    """A period, closed or open."""

    name: str | None = Field(description="Null while it is open.")
    previous: str | None = Field(description="The closed period before it.")
    opened_at_us: Moment | None = Field(description="When the period before it was closed.")
    closed_at_us: Moment | None
    first_sequence: Count | None = Field(description=f"The number of its first receipt. {_OF_EVERYBODY}")
    last_sequence: Count | None = Field(description=f"The number of its last receipt so far. {_OF_EVERYBODY}")


class Shares(Answer):
    """Who earned what in a period."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "shares",
                    "period": {
                        "name": None,
                        "previous": "2026-10",
                        "opened_at_us": 1790000000000000,
                        "closed_at_us": None,
                        "first_sequence": 2,
                        "last_sequence": 3,
                    },
                    "tokens": "6",
                    "accounts": [
                        {"account": "bank", "credit": "1500000", "share": 0.25},
                        {"account": "clinic", "credit": "3000000", "share": 0.5},
                        {"account": "commons", "credit": "1500000", "share": 0.25},
                    ],
                }
            ]
        }
    )

    object: Literal["shares"] = "shares"
    period: Window
    tokens: Whole | None = Field(description=f"Tokens of these receipts, less those reversed. {_OF_EVERYBODY}")
    accounts: list[SampledShare | AccountShare]


class Credit(Answer):
    """Credit of all time, or of a closed period."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "credit",
                    "period": None,
                    "receipts": 2,
                    "tokens": "6",
                    "balances": {"bank": "1500000", "clinic": "3000000", "commons": "1500000"},
                }
            ]
        }
    )

    object: Literal["credit"] = "credit"
    period: str | None = Field(description="The closed period; null is all time.")
    receipts: Count | None = Field(description=f"How many receipts there are, of whomever. {_OF_EVERYBODY}")
    tokens: Whole | None = Field(description=f"Their tokens, less those reversed. {_OF_EVERYBODY}")
    balances: dict[str, Whole] = Field(
        description="Account to micro-credits; those of all accounts sum to `tokens` * 1 000 000."
    )


class Entry(Answer):
    """One account's credit of one receipt, with what the receipt says of itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "entry",
                    "sequence": 1,
                    "response_id": "cmpl-7",
                    "kind": "response",
                    "reverses": None,
                    "booked_at_us": 1790000000000000,
                    "created_at_us": 1789999999000000,
                    "consortium": "hospital-net",
                    "model_sha256": "ab" * 32,
                    "tokens": "3",
                    "application": "0123456789ab",
                    "account": "bank",
                    "credit": "750000",
                }
            ]
        }
    )

    object: Literal["entry"] = "entry"
    sequence: Count = Field(description="The number of its receipt.")
    response_id: str
    kind: Literal["response", "reversal"]
    reverses: str | None = Field(description="The response that this takes back.")
    booked_at_us: Moment
    created_at_us: Moment
    consortium: str
    model_sha256: str
    tokens: Whole = Field(description="Generated tokens of the whole response; negative in a reversal.")
    application: str | None = Field(description="The id of the key that asked; null for a member's key.")
    account: str
    credit: Whole
