"""A policy as a settlement's document holds it, read a second time: slow, literal, and no code in common with policies.

Knows what a policy may say; what follows from it is `rewards.audit.settlement.settle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_LARGEST = 2**53 - 1
_MINUTE_US = 60_000_000
_AMOUNTS = ("pool", "price_per_million_tokens", "max_price_per_million_tokens")
_NUMBERS = ("minor_digits", "minimum_payout", "holdback_release_after", "dispute_days", "grace_hours")
_PERCENTAGES = ("fee_percent", "cap_percent", "holdback_percent")
_WORDS = {"allocation": ("pro_rata", "user_centric"), "commons": ("retain", "distribute")}
_NAMES = {"currency", "fees", "caps", "clock_skew_minutes", *_AMOUNTS, *_NUMBERS, *_PERCENTAGES, *_WORDS}


@dataclass(frozen=True)
class Terms:
    """What a policy says. Money in minor units of the currency, percentages as fractions of one.

    Attributes:
        currency: its code and its decimal places, which together are the currency.
        pool, price, fees: of these one is given: money in all, money per million tokens, or money by application.
        most: of `fees`: money per million tokens of an application that goes to clients, at most; None for all.
        by_application: whether each application's fee is divided by the credit in its own responses.
        distributes: whether the commons' part goes to the clients.
        fee, holdback: parts of the pool, and of each gross.
        cap, caps: largest part for a client, and for some clients.
        release_after: after how many periods a holdback is paid.
        least: money below which nothing is paid.
        skew_us: how far a clock may be ahead, in microseconds.
    """

    currency: tuple[str, int]
    pool: int | None
    price: int | None
    fees: Mapping[str, int]
    most: int | None
    by_application: bool
    distributes: bool
    fee: Fraction
    holdback: Fraction
    cap: Fraction
    caps: Mapping[str, Fraction]
    release_after: int
    least: int
    skew_us: int

    @classmethod
    def of(cls, policy: Mapping[str, Any]) -> Terms:
        """The terms of a stored policy.

        Raises:
            ValueError: it is none; says which field is at fault.
        """
        _check(policy)
        minutes = policy.get("clock_skew_minutes")
        return cls(
            currency=(policy["currency"], policy["minor_digits"]),
            pool=policy.get("pool"),
            price=policy.get("price_per_million_tokens"),
            fees=policy.get("fees", {}),
            most=policy.get("max_price_per_million_tokens"),
            by_application=policy["allocation"] == "user_centric",
            distributes=policy["commons"] == "distribute",
            fee=_part(policy["fee_percent"]),
            holdback=_part(policy["holdback_percent"]),
            cap=_part(policy["cap_percent"]),
            caps={client: _part(percent) for client, percent in policy["caps"].items()},
            release_after=policy["holdback_release_after"],
            least=max(policy["minimum_payout"], 1),
            skew_us=(10 if minutes is None else minutes) * _MINUTE_US,
        )


def _part(percent: Any) -> Fraction:
    part = Fraction(percent) / 100
    if not isinstance(percent, str) or not 0 <= part <= 1 or (part * 10**8).denominator != 1:
        raise ValueError(f"{percent!r} is no percentage of a policy")
    return part


def _check(policy: Mapping[str, Any]) -> None:
    unknown = sorted(set(policy) - _NAMES)
    if unknown:
        raise ValueError(f"a policy has no field {unknown[0]!r}")
    numbers = {name: policy[name] for name in _NUMBERS}
    numbers |= {name: policy[name] for name in (*_AMOUNTS, "clock_skew_minutes") if name in policy}
    numbers |= {f"fees.{application}": fee for application, fee in policy.get("fees", {}).items()}
    for name, value in numbers.items():
        if type(value) is not int or not 0 <= value <= _LARGEST:
            raise ValueError(f"{name} of a policy is {value!r}")
    for name, words in _WORDS.items():
        if policy[name] not in words:
            raise ValueError(f"{name} of a policy is {policy[name]!r}")
    sources = [name for name in ("pool", "price_per_million_tokens", "fees") if name in policy]
    wanted = ["fees"] if policy["allocation"] == "user_centric" else [each for each in sources if each != "fees"][:1]
    if sources != wanted or not sources:
        raise ValueError(f"a policy of allocation {policy['allocation']} takes its money from {sources}")
