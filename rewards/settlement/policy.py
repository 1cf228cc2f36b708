"""The settlement policy: what a period pays, to whom, and what is kept back. Computes nothing, and reads no file.

Every field says in its description what would be right; the errors and the schema of the YAML file repeat it.
"""

from __future__ import annotations

import re
from fractions import Fraction
from reprlib import Repr
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails

from rewards.credit import COMMONS, PENDING
from rewards.errors import MoneyError, PolicyError
from rewards.moments import SKEW_MINUTES
from rewards.money import minor_digits

LARGEST = 2**53 - 1
"""The largest integer that every reader of JSON keeps exact; no amount of money is larger."""
MOST_DISPUTE_DAYS = 366
MOST_GRACE_HOURS = 24 * 366
MOST_HOLDBACK_PERIODS = 1200
MOST_SKEW_MINUTES = 24 * 60

_DECIMAL = r"100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?"
_MILLIONTHS = 10**6
_MINUTE_US = 60_000_000


def _percent(value: Any) -> Fraction:
    if type(value) not in (int, str) or re.fullmatch(_DECIMAL, str(value)) is None:
        raise ValueError("not a percentage")
    return Fraction(value)


def _decimal(percent: Fraction) -> str:
    whole, millionths = divmod(int(percent * _MILLIONTHS), _MILLIONTHS)
    return f"{whole}.{millionths:06d}".rstrip("0").rstrip(".")


def _digits(given: dict[str, Any]) -> int:
    """The decimal places that go without saying; of a currency that is none, which is refused or was stored, two."""
    try:
        return minor_digits(given["currency"])
    except MoneyError:
        return 2


def _name(value: str) -> str:
    if not value.isprintable():
        raise ValueError("not a name")
    return value


def _client(value: str) -> str:
    if value in (COMMONS, PENDING):
        raise ValueError("not a client")
    return _name(value)


Percent = Annotated[
    Fraction,
    BeforeValidator(_percent),
    PlainSerializer(_decimal, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 100},
                {"type": "string", "pattern": f"^({_DECIMAL})$"},
            ]
        }
    ),
]
"""0 to 100, exact; in YAML a whole number or quoted text. What it is a percentage of, the field says."""


def _at_most(bound: int) -> AfterValidator:
    """Up to a bound, which policies that periods were settled by before there was one may exceed."""

    def check(value: int, info: ValidationInfo) -> int:
        if value > bound and not (info.context or {}).get("stored"):
            raise ValueError("too large")
        return value

    return AfterValidator(check)


def _range(least: int, bound: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": least, "maximum": bound})


Count = Annotated[int, Field(ge=0, le=LARGEST)]
_Application = Annotated[str, AfterValidator(_name), Field(min_length=1)]
_Client = Annotated[str, AfterValidator(_client), Field(min_length=1)]

_WHOLE = f"a whole number from 0 to {LARGEST}"
_PERCENTAGE = 'from 0 to 100 with at most 6 decimals, as a whole number or in quotes as in "2.5"'


class Currency(NamedTuple):
    """A currency as a policy names it: three letters, and decimal places."""

    code: str
    digits: int


class Policy(BaseModel):
    """How a period is paid out; frozen, and unknown fields are refused.

    Minor units are the smallest of the currency (cents). Percentages are exact fractions of 100.

    Attributes:
        currency: its code in ISO 4217, three capital letters.
        minor_digits: decimal places of the currency, 0 to 4; those of ISO 4217, and need not be said.
        pool: what a period pays in all, in minor units.
        price_per_million_tokens: instead of `pool`: minor units per million generated tokens.
        allocation: `pro_rata`: the pool is split by credit; `user_centric`: the fee of each application is split by
            the credit in its own responses.
        fees: application key id -> minor units that it paid for the period; makes up the pool of `user_centric`.
        max_price_per_million_tokens: of `user_centric`: what an application brings to clients, at most, in minor
            units per million tokens of its own; the rest of its fee goes to the commons.
        fee_percent: part of the pool that whoever runs the service keeps.
        cap_percent: largest part of the distributable pool for one client.
        caps: client -> its own cap instead of `cap_percent`.
        holdback_percent: part of each client's gross that is kept back for later.
        holdback_release_after: after how many periods it is paid.
        minimum_payout: minor units below which a client's money is carried over.
        commons: `retain`: the commons is paid like an account and the consortium's treasury keeps it;
            `distribute`: its part goes to the clients in proportion to their credit.
        dispute_days: how long a closed period stays a draft, 0 = final at once.
        grace_hours: how long after its end a period still takes what was booked late.
        clock_skew_minutes: how far a clock may be ahead. A receipt that says it was made later than that after its
            booking counts as made when it was booked; what is stamped later than that after now does not bar a move.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, title="Settlement policy")

    currency: Annotated[
        str, Field(pattern=r"^[A-Z]{3}$", description="three capital letters as in ISO 4217, such as EUR")
    ]
    minor_digits: Annotated[
        int,
        Field(
            ge=0,
            le=4,
            default_factory=_digits,
            description="the decimal places that ISO 4217 gives the currency, 0 to 4 (EUR has 2, JPY 0), or left out",
        ),
    ]
    pool: Annotated[Count | None, Field(description=f"{_WHOLE}: minor units (cents) that a period pays in all")] = None
    price_per_million_tokens: Annotated[
        Count | None, Field(description=f"{_WHOLE}: minor units per million generated tokens")
    ] = None
    allocation: Annotated[
        Literal["pro_rata", "user_centric"], Field(description="pro_rata or user_centric, as text")
    ] = "pro_rata"
    fees: Annotated[
        dict[_Application, Count] | None,
        Field(min_length=1, description=f"minor units by application key id, at least one, each {_WHOLE}"),
    ] = None
    max_price_per_million_tokens: Annotated[
        Count | None, Field(description=f"{_WHOLE}: minor units per million tokens of the application")
    ] = None
    fee_percent: Annotated[Percent, Field(description=f"a percentage of the pool {_PERCENTAGE}")] = Fraction(0)
    cap_percent: Annotated[Percent, Field(description=f"a percentage of the distributable pool {_PERCENTAGE}")] = (
        Fraction(100)
    )
    caps: Annotated[
        dict[_Client, Percent],
        Field(description=f"by client (the commons has no cap) a percentage of the distributable pool {_PERCENTAGE}"),
    ] = {}
    holdback_percent: Annotated[Percent, Field(description=f"a percentage of each gross {_PERCENTAGE}")] = Fraction(0)
    holdback_release_after: Annotated[
        Annotated[int, Field(ge=1, le=LARGEST), _at_most(MOST_HOLDBACK_PERIODS), _range(1, MOST_HOLDBACK_PERIODS)],
        Field(description=f"a whole number of periods from 1 to {MOST_HOLDBACK_PERIODS}"),
    ] = 1
    minimum_payout: Annotated[Count, Field(description=f"{_WHOLE}: minor units")] = 0
    commons: Annotated[Literal["retain", "distribute"], Field(description="retain or distribute, as text")] = "retain"
    dispute_days: Annotated[
        Annotated[int, Field(ge=0, le=LARGEST), _at_most(MOST_DISPUTE_DAYS), _range(0, MOST_DISPUTE_DAYS)],
        Field(description=f"a whole number of days from 0 to {MOST_DISPUTE_DAYS}"),
    ] = 0
    grace_hours: Annotated[
        Annotated[int, Field(ge=0, le=LARGEST), _at_most(MOST_GRACE_HOURS), _range(0, MOST_GRACE_HOURS)],
        Field(description=f"a whole number of hours from 0 to {MOST_GRACE_HOURS}"),
    ] = 0
    clock_skew_minutes: Annotated[
        Annotated[int, Field(ge=0, le=LARGEST), _at_most(MOST_SKEW_MINUTES), _range(0, MOST_SKEW_MINUTES)] | None,
        Field(description=f"a whole number of minutes from 0 to {MOST_SKEW_MINUTES}; {SKEW_MINUTES} without it"),
    ] = None

    @model_validator(mode="after")
    def _is_of_a_currency(self, info: ValidationInfo) -> Self:
        if (info.context or {}).get("stored"):
            return self
        try:
            digits = minor_digits(self.currency)
        except MoneyError as error:
            raise ValueError(f"currency: {error}") from error
        if digits != self.minor_digits:
            raise ValueError(
                f"minor_digits: {self.currency} has {digits} decimal places in ISO 4217, not {self.minor_digits}; "
                "leave the line out"
            )
        return self

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.allocation == "user_centric":
            self._check_user_centric()
        else:
            self._check_pro_rata()
        parts = self.fee_percent + self.holdback_percent
        if parts > 100:
            raise ValueError(
                f"fee_percent {_decimal(self.fee_percent)} and holdback_percent {_decimal(self.holdback_percent)} add "
                f"up to {_decimal(parts)}, but the parts of a pool must not exceed 100"
            )
        if self.holdback_release_after > 1 and not self.holdback_percent:
            raise ValueError("holdback_release_after: nothing is held back; give holdback_percent as well, or neither")
        return self

    def _check_pro_rata(self) -> None:
        if (self.pool is None) == (self.price_per_million_tokens is None):
            given = "neither" if self.pool is None else "both"
            raise ValueError(f"pool, price_per_million_tokens: {given} is given; give exactly one of the two")
        for field in ("fees", "max_price_per_million_tokens"):
            if getattr(self, field) is not None:
                raise ValueError(f"{field}: is for allocation user_centric; leave it out, or set the allocation")

    def _check_user_centric(self) -> None:
        if self.fees is None:
            raise ValueError("fees: is missing; allocation user_centric needs the fee of each application key id")
        for field in ("pool", "price_per_million_tokens"):
            if getattr(self, field) is not None:
                raise ValueError(f"{field}: leave it out; under allocation user_centric the fees make up the pool")

    def cap(self, client: str) -> Fraction:
        """The largest part of the distributable pool for this client, in percent."""
        return self.caps.get(client, self.cap_percent)

    @property
    def least_payout(self) -> int:
        """Minor units below which nothing is paid: of nothing there is no payout."""
        return max(self.minimum_payout, 1)

    @property
    def money(self) -> Currency:
        """The currency with its digits, which is what amounts belong to."""
        return Currency(self.currency, self.minor_digits)

    @property
    def skew_us(self) -> int:
        """How far a clock may be ahead, in microseconds."""
        minutes = SKEW_MINUTES if self.clock_skew_minutes is None else self.clock_skew_minutes
        return minutes * _MINUTE_US

    @classmethod
    def from_mapping(cls, document: Any, source: str = "policy", *, stored: bool = False) -> Policy:
        """A policy from plain data; one that a period was settled by (`stored`) may break rules that are younger.

        Raises:
            PolicyError: names the source, each field that is missing, unknown or out of its range, and what would be
                right.
        """
        try:
            return cls.model_validate(document, context={"stored": stored})
        except ValidationError as error:
            faults = [fault for fault in error.errors() if fault["type"] != "default_factory_not_called"]
            raise PolicyError(f"{source}: {'; '.join(map(_fault, faults))}") from error


_shown = Repr()
_shown.maxstring = _shown.maxother = 60


def _fault(fault: ErrorDetails) -> str:
    """One fault in words: which field, what would be right, what was found."""
    where = [str(part) for part in fault["loc"] if part != "[key]"]
    if not where:
        error = fault.get("ctx", {}).get("error")
        return str(error or f"document: must be a mapping of fields, not {_shown.repr(fault['input'])}")
    field = Policy.model_fields.get(where[0])
    if field is None:
        return f"{where[0]}: is no field of a policy; the fields are {', '.join(Policy.model_fields)}"
    if fault["type"] == "missing":
        return f"{where[0]}: is missing; must be {field.description}"
    return f"{'.'.join(where)}: must be {field.description}, not {_shown.repr(fault['input'])}"
