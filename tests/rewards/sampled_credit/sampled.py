"""Receipts of responses that were chosen by a rule, and ids that it chooses or not. Knows no ledger."""

from dataclasses import replace
from itertools import count

from rewards.credit import Receipt, pending_receipt
from rewards.sampled_credit.rule import SamplingRule
from tests.rewards.receipts import SHARES, make_receipt

KEY = bytes(range(32))
RULE = SamplingRule(100_000, KEY)


def chosen_id(rule: SamplingRule = RULE, *, measured: bool = True, name: str = "r") -> str:
    """The first id of a name that a rule measures, or does not."""
    return next(each for number in count() if rule.is_measured(each := f"{name}{number}") == measured)


def pending(name: str, tokens: int = 7, rule: SamplingRule = RULE, **changes: object) -> Receipt:
    """The receipt of a response that a rule does not measure, under an id that begins with the name."""
    response_id = chosen_id(rule, measured=False, name=name)
    plain = make_receipt(response_id, tokens)
    receipt = pending_receipt(
        response_id=response_id,
        created_at_us=plain.created_at_us,
        application=plain.application,
        consortium=plain.consortium,
        model_sha256=plain.model_sha256,
        tokens=tokens,
        measurement=rule.evidence(response_id),
        duration_us=plain.duration_us,
    )
    return replace(receipt, **changes)


def measured(
    name: str, tokens: int = 7, shares: dict[str, float] = SHARES, rule: SamplingRule = RULE, **changes: object
) -> Receipt:
    """The receipt of a response that a rule measures, under an id that begins with the name."""
    receipt = make_receipt(chosen_id(rule, name=name), tokens, shares)
    evidence = {**receipt.measurement, **rule.evidence(receipt.response_id)}
    return replace(receipt, **{"measurement": evidence, **changes})


def sampled(response_id: str, rule: SamplingRule, tokens: int = 7, shares: dict[str, float] = SHARES) -> Receipt:
    """The receipt of a response, measured or pending as the rule says."""
    plain = make_receipt(response_id, tokens, shares)
    evidence = rule.evidence(response_id)
    if rule.is_measured(response_id):
        return replace(plain, measurement={**plain.measurement, **evidence})
    return replace(
        plain, method="none", version="none", settings={}, amounts={"pending": tokens * 1_000_000}, measurement=evidence
    )
