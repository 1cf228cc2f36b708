"""What was not measured, settled a second time: step 0 of the rule, and the standard errors that come of it.

Same words as `rewards.settlement.settle` and `rewards.settlement.pending`, no code in common. Knows no row, no event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import isqrt

from rewards.audit.hashing import Document
from rewards.audit.settlement.dividing import COMMONS, divide

PENDING = "pending"
_MICRO_CREDITS = 10**6  # of one token
_DECIMALS = 10**12

SampleKey = tuple[str, str, str, str]
"""Consortium, model hash, fraction and application of the responses of a sample."""


@dataclass
class Sample:
    """What the responses of one stratum come to, those that were reversed taken off.

    Attributes:
        counts: how many were measured, and how many were not.
        credit: the credit of both.
        sums: (account, account) -> sum of the products of their credit in each measured response; an account of None
            is all of a response's credit, and a pair with "" at its end the sum of the credit alone.
    """

    counts: Counter[bool] = field(default_factory=Counter)
    credit: Counter[bool] = field(default_factory=Counter)
    sums: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)

    def add(self, amounts: Mapping[str, int], sign: int) -> None:
        """Add a response by its credit, or take it off."""
        is_measured, whole = PENDING not in amounts, sum(amounts.values())
        self.counts[is_measured] += sign
        self.credit[is_measured] += sign * whole
        if is_measured:
            self.sums[None, None] += sign * whole**2
            for account, amount in amounts.items():
                self.sums[account, ""] += sign * amount
                self.sums[account, account] += sign * amount**2
                self.sums[None, account] += sign * amount * whole

    def join(self, other: Sample, sign: int = 1) -> None:
        """Add what another one comes to, or take it off."""
        for name in ("counts", "credit", "sums"):
            own = getattr(self, name)
            for key, amount in getattr(other, name).items():
                own[key] += sign * amount

    def measured_credit(self) -> dict[str, int]:
        """Account -> credit that was measured, where there is any."""
        return {str(account): amount for (account, other), amount in self.sums.items() if other == "" and amount}

    def error_squared(self, account: str) -> Fraction:
        """The squared standard error of an account's credit, as Cochran has it; nothing where two are not measured."""
        measured, unmeasured = self.counts[True], self.counts[False]
        if measured < 2:
            return Fraction(0)
        ratio = Fraction(self.sums[account, ""], self.credit[True])
        residuals = (
            self.sums[account, account] - 2 * ratio * self.sums[None, account] + ratio**2 * self.sums[None, None]
        )
        mean = Fraction(self.credit[True], measured)
        of_ratio = (1 - Fraction(measured, measured + unmeasured)) * residuals / (measured * mean**2 * (measured - 1))
        return of_ratio * Fraction(self.credit[True] + self.credit[False]) ** 2


Samples = dict[SampleKey, Sample]


def take_off(samples: Samples, others: Samples) -> Samples:
    """The samples without what the others come to."""
    left: Samples = {key: Sample() for key in (*samples, *others)}
    for key, sample in left.items():
        sample.join(samples.get(key, Sample()))
        sample.join(others.get(key, Sample()), -1)
    return left


def open_samples(samples: Samples, *, by_application: bool) -> Samples:
    """The samples in which something is pending, in order; of all applications together where they are not apart."""
    joined: Samples = {}
    for (*key, application), sample in samples.items():
        whose = (key[0], key[1], key[2], application if by_application else "")
        joined.setdefault(whose, Sample()).join(sample)
    return {key: joined[key] for key in sorted(joined) if joined[key].counts[False]}


def settle_pending(
    credit: Mapping[tuple[str, str], int], samples: Samples, salt: str, *, by_application: bool
) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Credit by application and account without what is pending, and what each account has of that."""
    settled: Counter[str] = Counter()
    whole = Counter({pair: amount for pair, amount in credit.items() if pair[1] != PENDING})
    for (*_, application), sample in open_samples(samples, by_application=by_application).items():
        weights = sample.measured_credit()
        parts = divide(sample.credit[False], weights, salt) if weights else {COMMONS: sample.credit[False]}
        settled.update(parts)
        whole.update({(application, account): amount for account, amount in parts.items()})
    return whole, settled


def sampling_document(samples: Samples, settled: Mapping[str, int], tokens: int, late: int, held: int) -> Document:
    """What the document of a settlement says of open samples."""
    squared: dict[str, Fraction] = {}
    for sample in samples.values():
        for account in sample.measured_credit():
            squared[account] = squared.get(account, Fraction(0)) + sample.error_squared(account)
    whole = max(tokens, 1) * _MICRO_CREDITS
    return {
        "strata": [_stratum(key, sample) for key, sample in samples.items()],
        "settled": {account: str(settled[account]) for account in sorted(settled)},
        "standard_errors": {account: _root(squared[account] / whole**2) for account in sorted(squared)},
        "untold_credit": str(sum(sample.credit[False] for sample in samples.values() if sample.counts[True] < 2)),
        "late_credit": str(late),
        "held_credit": str(held),
    }


def _stratum(key: SampleKey, sample: Sample) -> Document:
    names = ("consortium", "model_sha256", "fraction", "application")
    return {
        **{name: value for name, value in zip(names, key, strict=True) if value or name != "application"},
        "measured": sample.counts[True],
        "measured_credit": str(sample.credit[True]),
        "pending": sample.counts[False],
        "pending_credit": str(sample.credit[False]),
    }


def _root(square: Fraction) -> str:
    """The least decimal of 12 digits whose square is not below this."""
    wanted = square * _DECIMALS**2
    root = isqrt(int(wanted))
    root += root * root < wanted
    return f"{root // _DECIMALS}.{root % _DECIMALS:012d}"
