"""What an application is told of a response's credit, as a whole and token by token. Computes no score of its own."""

from attribution.records import AttributedResponse
from deployment.replica.messages import Summary, TokenCredit
from rewards.credit import Receipt


def summary_of(response: AttributedResponse, receipt: Receipt) -> Summary:
    """What an application is told about the credit; the receipt's id is the hash of its payload."""
    return Summary(
        receipt_id=receipt.payload_sha256,
        method=response.method,
        shares=dict(response.shares),
        base_share=response.base_share,
        credit=dict(receipt.amounts),
        completeness_error=response.completeness_error,
    )


def token_credits(response: AttributedResponse) -> tuple[TokenCredit, ...]:
    """Each token's part in the credit: β_j to the base, the rest split by the response's netted shares (design 5).

    So the mean over the tokens is the response's shares, which are what was booked; `scores` tell the tokens apart.
    """
    assert response.scores is not None, "token-level scores were not computed"
    earned = sum(response.shares.values())
    credits_ = []
    for index, (token, token_id) in enumerate(zip(response.tokens, response.token_ids, strict=True)):
        base_share = response.base_shares[index] if earned > 0 else 1.0
        part = (1.0 - base_share) / earned if earned > 0 else 0.0
        credits_.append(
            TokenCredit(
                token=token,
                token_id=token_id,
                shares={client: part * share for client, share in response.shares.items()},
                scores={client: scores[index] for client, scores in response.scores.items()},
                base_share=base_share,
            )
        )
    return tuple(credits_)
