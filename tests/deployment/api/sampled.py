"""Responses of which a part is measured, booked by the rule in force. Knows no HTTP."""

from dataclasses import replace

import pytest

from rewards.credit import Receipt, pending_receipt
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys, put_in_force
from rewards.store.database import now_us
from tests.deployment.api.conftest import make_receipt
from tests.deployment.gateway.engines import CARD


def sample(ledger: Ledger, fraction: str, count: int, name: str = "sampled") -> list[Receipt]:
    """Book so many responses under a fraction; which of them were measured, their receipts say.

    The key that decides is always the same: by chance hardly any, or only alike ones, would be measured sometimes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rewards.sampled_credit.keys.secrets.token_bytes", lambda size: bytes(range(size)))
        put_in_force(ledger.database, CARD.name, fraction, "test")
    at_us = now_us()
    rule = SamplingKeys(ledger.database).rule(CARD.name, at_us)
    receipts = []
    for number in range(count):
        response_id = f"{name}-{number}"
        evidence = rule.evidence(response_id)
        receipt = replace(make_receipt(1 + number % 4), response_id=response_id, created_at_us=at_us)
        if rule.is_measured(response_id):
            receipt = replace(receipt, measurement={**receipt.measurement, **evidence})
        else:
            receipt = pending_receipt(
                response_id=response_id,
                created_at_us=at_us,
                application=receipt.application,
                consortium=receipt.consortium,
                model_sha256=receipt.model_sha256,
                tokens=receipt.tokens,
                measurement=evidence,
                duration_us=receipt.duration_us,
            )
        receipts.append(receipt)
    ledger.append_many(receipts)
    return receipts
