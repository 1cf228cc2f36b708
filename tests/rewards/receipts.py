"""Receipts for tests. Knows no ledger."""

from rewards.credit import Receipt, receipt_amounts

MEMBERS = {"bank": "A bank", "clinic": "A clinic", "rider": "A free rider"}
SHARES = {"bank": 0.25, "clinic": 0.5, "rider": 0.0}


def make_receipt(
    response_id: str,
    tokens: int = 7,
    shares: dict[str, float] = SHARES,
    created_at_us: int = 1_700_000_000_000_000,
) -> Receipt:
    """A receipt whose commons gets what the clients' shares leave."""
    return Receipt(
        response_id=response_id,
        created_at_us=created_at_us,
        application="0123456789ab",
        consortium="demo",
        model_sha256="a" * 64,
        method="credit",
        settings={"nodes": 2},
        version="1",
        tokens=tokens,
        amounts=receipt_amounts(response_id, tokens, shares, 1 - sum(shares.values())),
        measurement={"response_scores": {"bank": -0.1, "clinic": 1e-17}, "gain": 0.3},
        duration_us=1_500_000,
    )
