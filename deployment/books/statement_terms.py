"""How the period of a statement was settled, in words: policy, cap, holdback and its return, rounding, reversals.

Says what the statement says; of one that does not explain itself there is nothing to say.
"""

from collections.abc import Mapping
from typing import Any

from rewards import money


def terms(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rules that a client's money came about by, as pairs of name and value."""
    if "policy" not in document:
        return []
    policy, rounding = document["policy"], document["rounding"]
    return [
        ("Pool", _pool(document)),
        ("Fee of the service", f"{policy['fee_percent']} % of the pool, {rounding['fee']}"),
        ("Shared out", _allocation(policy)),
        ("Commons", _COMMONS[policy["commons"]]),
        ("Cap", f"{document['cap_percent']} % of what is shared out; what is above goes to those below their caps"),
        ("Rounding to whole units", rounding["gross"]),
        *_holdback(document),
        ("Least that is paid", _amount(document, policy["minimum_payout"])),
    ]


def reversals(document: Mapping[str, Any], most: int | None = None) -> list[tuple[str, str]]:
    """What was taken back, and for which responses; of those at most so many, and how many more there are."""
    entries = [
        (f"Taken back of {each['period']}", _amount(each, int(each["amount"])))
        for each in document.get("clawbacks", ())
    ]
    responses = document.get("reversed", ())
    entries += [
        (f"Credit of {each['response_id']}, reversed", f"{_credit(each)} of {each['period']}")
        for each in responses[:most]
    ]
    if most is not None and len(responses) > most:
        entries.append(("Reversed besides", f"{len(responses) - most} more, in the statement as JSON"))
    return entries


_COMMONS = {
    "retain": "is paid like an account, for the consortium's treasury",
    "distribute": "goes to the clients, by their credit",
}


def _pool(document: Mapping[str, Any]) -> str:
    price, amount = document["policy"].get("price_per_million_tokens"), _amount(document, int(document["pool"]))
    if price is not None:
        return f"{amount}, at {_amount(document, price)} a million tokens, {document['rounding']['pool']}"
    if document["policy"]["allocation"] == "user_centric":
        return f"{amount}, the fees of all applications"
    return f"{amount}, of the policy"


def _allocation(policy: Mapping[str, Any]) -> str:
    if policy["allocation"] == "user_centric":
        return "the fee of each application, by the credit in its own responses"
    return "by credit above zero in all responses of the period"


def _holdback(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    policy = document["policy"]
    entries = []
    if int(document["money"]["holdback"]):
        returns = document["ordinal"] + policy["holdback_release_after"]
        kept = f"{policy['holdback_percent']} % of the gross, {document['rounding']['holdback']}"
        entries.append(
            ("Kept back", f"{kept}; it returns in period number {returns} (this is number {document['ordinal']})")
        )
    entries += [
        (f"Returns in period number {each['released_in']}", _amount(document, int(each["amount"])))
        for each in document["holdbacks"]
    ]
    return entries


def _credit(reversal: Mapping[str, Any]) -> str:
    return money.write_readable(int(reversal["credit"]), "", 0)


def _amount(document: Mapping[str, Any], minor_units: int) -> str:
    return money.write_readable(minor_units, document["currency"], document["minor_digits"])
