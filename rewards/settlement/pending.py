"""What was not measured, settled by what was: exact credit, and the standard error that comes of it. Knows no SQL.

Responses fall into strata: those of one consortium, one bundle (model hash) and one credit fraction, and where each
application's fee is divided by the credit of its own responses, of one application. Within a stratum each response was
measured with the same probability, so the measured ones speak for the others:

- The pending credit of a stratum is divided by its measured credit (`largest_remainder`, clients and commons alike; the
  salt of the tie-break is the name of the period).
- Where nothing was measured it is the commons', as is whatever nobody is known to have earned. Other bundles do not
  speak for it, for their clients may be others; nor, where fees are divided, do other applications, or whoever sends
  many requests could draw the fees of those who send few. With n responses that happens with probability (1 - f)^n.

The estimate is Cochran's ratio estimate of a total, with tokens as the auxiliary whose total is known (W. G. Cochran,
Sampling Techniques, 3rd ed. 1977, sections 2.11 and 6.4). Of N responses of a stratum n were measured; response i has
credit x_i in all (tokens * 10^6) and y_i of a client, X and Y are their sums over the measured, R = Y / X, and T is the
credit of all N, which is known. The variance of the client's credit R T in the stratum is estimated, given n, as

    T^2 * (1 - n / N) / (n (X / n)^2) * sum (y_i - R x_i)^2 / (n - 1)

where 1 - n / N is for the finite population: nothing is left open when all are measured. Strata are independent, so
variances add; the standard error of a client's share of the period's credit is the root of their sum over tokens *
10^6. Of a stratum with fewer than two measured responses no variance can be told; its pending credit is told as untold.
A client's error is itself an estimate, of the responses that credit it: where those are a handful of the measured ones,
it is mostly too small (of a client in 2 % of 200 measured responses, three errors hold the truth in about 92 of 100).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, isqrt
from typing import Any, NamedTuple

from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN
from rewards.files.strict_json import JsonObject
from rewards.largest_remainder import divide

DECIMALS = 12
"""Digits of a standard error; it is rounded up, so that it is never told smaller than it is."""


NO_ERROR = f"0.{0:0{DECIMALS}}"
"""The standard error of a share that no sample has a part in."""


class StratumKey(NamedTuple):
    """What the responses of a stratum have in common; `application` is empty where they are not told apart."""

    consortium: str
    model_sha256: str
    fraction: str
    application: str = ""


@dataclass
class Stratum:
    """Sums over the responses of a stratum; those that were reversed count against it.

    Attributes:
        measured: responses that were measured.
        credit: their credit, of all accounts: sum of x.
        squares: sum of x^2.
        own: account -> its credit in them: sum of y.
        own_squares: account -> sum of y^2.
        products: account -> sum of x * y.
        pending: responses that were not measured.
        pending_credit: their credit.
    """

    measured: int = 0
    credit: int = 0
    squares: int = 0
    own: Counter[str] = field(default_factory=Counter)
    own_squares: Counter[str] = field(default_factory=Counter)
    products: Counter[str] = field(default_factory=Counter)
    pending: int = 0
    pending_credit: int = 0

    def measure(self, whole: int, amounts: Iterable[tuple[str, int]], sign: int = 1) -> None:
        """Count a measured response with its credit in all and by account, or count it out with a sign of -1."""
        self.measured += sign
        self.credit += sign * whole
        self.squares += sign * whole * whole
        for account, amount in amounts:
            self.own[account] += sign * amount
            self.own_squares[account] += sign * amount * amount
            self.products[account] += sign * whole * amount

    def add(self, other: Stratum, sign: int = 1) -> None:
        """Count another one's responses in, or out with a sign of -1."""
        for name in ("measured", "credit", "squares", "pending", "pending_credit"):
            setattr(self, name, getattr(self, name) + sign * getattr(other, name))
        for name in ("own", "own_squares", "products"):
            sums = getattr(self, name)
            for account, amount in getattr(other, name).items():
                sums[account] += sign * amount

    def divide(self, salt: str) -> dict[str, int]:
        """Account -> its part of what is pending; they sum to that."""
        weights = {account: amount for account, amount in self.own.items() if amount}
        return divide(self.pending_credit, weights, salt) if weights else {COMMONS: self.pending_credit}

    def variance(self, account: str) -> Fraction:
        """The variance of an account's credit; at least two responses must be measured."""
        own, whole = self.own[account], self.credit
        squared = self.own_squares[account] - Fraction(2 * own * self.products[account], whole)
        squared += Fraction(own * own * self.squares, whole * whole)
        of_ratio = Fraction(self.pending, self.measured + self.pending) * Fraction(self.measured, whole * whole)
        return (whole + self.pending_credit) ** 2 * of_ratio * squared / (self.measured - 1)


Strata = Mapping[StratumKey, Stratum]


def add_strata(total: dict[StratumKey, Stratum], other: Strata, sign: int = 1) -> None:
    """Count other strata in, or out with a sign of -1."""
    for key, stratum in other.items():
        total.setdefault(key, Stratum()).add(stratum, sign)


def settled_credit(strata: Strata, salt: str) -> Counter[tuple[str, str]]:
    """(application, account) -> micro-credits of what is pending; they sum to all of it."""
    settled: Counter[tuple[str, str]] = Counter()
    for key, stratum in strata.items():
        if stratum.pending_credit:
            for account, amount in stratum.divide(salt).items():
                settled[key.application, account] += amount
    assert settled.total() == sum(stratum.pending_credit for stratum in strata.values())
    return settled


def standard_errors(strata: Strata, tokens: int) -> dict[str, str]:
    """Account -> standard error of its share of the credit of so many tokens, as decimal text."""
    variances: dict[str, Fraction] = {}
    for stratum in strata.values():
        if stratum.pending and stratum.measured:
            for account in (account for account, own in stratum.own.items() if own):
                told = stratum.variance(account) if stratum.measured > 1 else Fraction(0)
                variances[account] = variances.get(account, Fraction(0)) + told
    whole = max(tokens, 1) * MICRO_CREDITS_PER_TOKEN
    return {account: _root_text(variance / whole**2) for account, variance in sorted(variances.items())}


@dataclass(frozen=True)
class Sampling:
    """What a settlement says of the responses that were not measured.

    Attributes:
        strata: of each stratum with pending responses, in order: its key, how many responses were measured and were
            not, and the credit of both.
        settled: account -> micro-credits that it has of what was pending.
        standard_errors: account -> standard error of its share of the period's credit.
        untold_credit: pending credit of strata with fewer than two measured responses.
        late_credit: the part of what was pending that is of responses made before the previous period ended.
        held_credit: pending credit left out because of holds; not settled.
    """

    strata: tuple[tuple[StratumKey, int, int, int, int], ...]
    settled: Mapping[str, int]
    standard_errors: Mapping[str, str]
    untold_credit: int
    late_credit: int
    held_credit: int

    @property
    def responses(self) -> tuple[int, int]:
        """How many responses there are in these strata, and how many of them were measured."""
        measured = sum(each[1] for each in self.strata)
        return measured + sum(each[3] for each in self.strata), measured

    @property
    def pending_credit(self) -> int:
        """All that was pending and is settled."""
        return sum(each[4] for each in self.strata)

    def to_document(self) -> JsonObject:
        """Plain data for JSON, credit as decimal text; `from_document` reads it back."""
        return {
            "strata": [_stratum_document(*each) for each in self.strata],
            "settled": {account: str(amount) for account, amount in self.settled.items()},
            "standard_errors": dict(self.standard_errors),
            **{name: str(getattr(self, name)) for name in ("untold_credit", "late_credit", "held_credit")},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Sampling:
        """What `to_document` wrote down; KeyError, TypeError or ValueError when it did not."""
        return cls(
            strata=tuple(
                (
                    StratumKey(each["consortium"], each["model_sha256"], each["fraction"], each.get("application", "")),
                    each["measured"],
                    int(each["measured_credit"]),
                    each["pending"],
                    int(each["pending_credit"]),
                )
                for each in document["strata"]
            ),
            settled={account: int(amount) for account, amount in document["settled"].items()},
            standard_errors=dict(document["standard_errors"]),
            **{name: int(document[name]) for name in ("untold_credit", "late_credit", "held_credit")},
        )


def sampling_of(strata: Strata, tokens: int, salt: str, late_credit: int, held_credit: int) -> Sampling | None:
    """What there is to say of a period's strata; None where nothing was pending."""
    open_strata = {key: stratum for key, stratum in sorted(strata.items()) if stratum.pending}
    if not open_strata and not held_credit:
        return None
    settled: Counter[str] = Counter()
    for (_, account), amount in settled_credit(open_strata, salt).items():
        settled[account] += amount
    return Sampling(
        strata=tuple(
            (key, stratum.measured, stratum.credit, stratum.pending, stratum.pending_credit)
            for key, stratum in open_strata.items()
        ),
        settled=dict(sorted(settled.items())),
        standard_errors=standard_errors(open_strata, tokens),
        untold_credit=sum(stratum.pending_credit for stratum in open_strata.values() if stratum.measured < 2),
        late_credit=late_credit,
        held_credit=held_credit,
    )


def _stratum_document(key: StratumKey, measured: int, credit: int, pending: int, pending_credit: int) -> JsonObject:
    named = key._asdict()
    if not key.application:
        del named["application"]
    counted = {"measured": measured, "measured_credit": str(credit)}
    return {**named, **counted, "pending": pending, "pending_credit": str(pending_credit)}


def _root_text(square: Fraction) -> str:
    """The root, rounded up to so many decimals."""
    scaled = ceil(square * 10 ** (2 * DECIMALS))
    root = isqrt(scaled - 1) + 1 if scaled else 0
    whole, rest = divmod(root, 10**DECIMALS)
    return f"{whole}.{rest:0{DECIMALS}}"
