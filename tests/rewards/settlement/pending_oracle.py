"""Settling what is pending once more: response by response, with lists and fractions, apart from the implementation.

Kept to check it. Where that adds up sums of squares, this keeps every response and follows the words literally.
"""

from dataclasses import dataclass
from fractions import Fraction

from rewards.settlement.pending import Stratum, StratumKey
from tests.rewards.settlement.settlement_oracle import largest_remainder


@dataclass(frozen=True)
class Response:
    """One sampled response: its stratum, and its credit by account where it was measured, else in all."""

    key: StratumKey
    tokens: int
    amounts: dict[str, int] | None

    @property
    def whole(self) -> int:
        return self.tokens * 10**6


def strata_of(responses: list[Response]) -> dict[StratumKey, Stratum]:
    """The responses as the implementation adds them up."""
    strata: dict[StratumKey, Stratum] = {}
    for response in responses:
        stratum = strata.setdefault(response.key, Stratum())
        if response.amounts is None:
            stratum.pending += 1
            stratum.pending_credit += response.whole
        else:
            stratum.measure(response.whole, response.amounts.items())
    return strata


def settle_slowly(responses: list[Response], salt: str) -> dict[tuple[str, str], int]:
    """(application, account) -> what it has of what is pending."""
    settled: dict[tuple[str, str], int] = {}
    for key in sorted({response.key for response in responses}):
        own = [response for response in responses if response.key == key]
        left = sum(response.whole for response in own if response.amounts is None)
        weights: dict[str, int] = {}
        for response in own:
            for account, amount in (response.amounts or {}).items():
                weights[account] = weights.get(account, 0) + amount
        weights = {account: weight for account, weight in weights.items() if weight}
        parts = {} if not left else largest_remainder(left, weights, salt) if weights else {"commons": left}
        for account, amount in parts.items():
            settled[key.application, account] = settled.get((key.application, account), 0) + amount
    return {pair: amount for pair, amount in settled.items() if amount}


def error_of(responses: list[Response], account: str) -> float:
    """The standard error of an account's share of the credit of all these responses, by the formula's own letters."""
    variance = Fraction(0)
    for key in {response.key for response in responses}:
        own = [response for response in responses if response.key == key]
        measured = [response for response in own if response.amounts is not None]
        number, n = len(own), len(measured)
        if n < 2 or n == number:
            continue
        x = [response.whole for response in measured]
        y = [(response.amounts or {}).get(account, 0) for response in measured]
        ratio, mean = Fraction(sum(y), sum(x)), Fraction(sum(x), n)
        spread = sum((each - ratio * whole) ** 2 for each, whole in zip(y, x, strict=True)) / (n - 1)
        of_ratio = (1 - Fraction(n, number)) / (n * mean**2) * spread
        variance += sum(response.whole for response in own) ** 2 * of_ratio
    return float(variance) ** 0.5 / sum(response.whole for response in responses)
