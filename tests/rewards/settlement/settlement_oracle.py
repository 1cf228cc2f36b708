"""The rules of settlement once more: slowly, with fractions of money and plain loops, apart from the implementation.

Kept to check it. Where the rules leave a choice of method, this one takes another: caps are filled one client at a
time, units are handed out one by one, and debts are paid out of purses.
"""

import math
from fractions import Fraction
from hashlib import sha256

TRILLION = 10**12


def settle_slowly(period, ordinal, credit, policy, purses, held_clients):
    """What `settle` must come to: (pool, fee, account -> field -> value).

    `purses` is (currency, digits) -> purse, updated; only that of the policy's currency is opened.
    """
    purse = purses.setdefault((policy.currency, policy.minor_digits), new_purse())
    carried = purse["accounts"]
    pool = pool_of(credit, policy, purse)
    fee = fee_of(pool, policy, purse)
    distributable = pool - fee
    parts = capped_parts(period, credit, policy, distributable)
    accounts = {"commons", *parts, *credit.credit, *credit.late, *credit.held, *credit.clawbacks, *carried}
    for account in accounts:
        carried.setdefault(account, new_account())
    gross = gross_of(period, credit, policy, purse, parts, distributable)
    lines = {}
    for account in sorted(accounts):
        own = carried[account]
        own["residue"] += (parts.get(account, Fraction(0)) if distributable else 0) - gross[account]
        shared = parts.get(account, Fraction(0)) / max(distributable, 1)
        lines[account] = {"gross": gross[account], "share": shared, "residue": own["residue"]}
    clients = [account for account in sorted(accounts) if account != "commons"]
    givers = {client for client in clients if carried[client]["debt"] or due_back(client, carried[client], credit)}
    others = {client: credit.credit[client] for client in clients if credit.credit.get(client, 0) > 0}
    others = {client: others[client] for client in others if client not in givers}
    paid = {}
    for client in givers:
        own = carried[client]
        paid[client] = pay(client, own, gross[client], credit, policy, ordinal, client in held_clients, 0)
    recovered = sum(each.pop("gave_back") for each in paid.values())
    shares = {}
    if policy.commons == "distribute" and others and recovered:
        shares = largest_remainder(recovered, others, period)
    for client in clients:
        if client not in givers:
            own, got = carried[client], shares.get(client, 0)
            paid[client] = pay(client, own, gross[client], credit, policy, ordinal, client in held_clients, got)
            assert paid[client].pop("gave_back") == 0
        lines[client].update(paid[client])
    recovered -= sum(shares.values())
    own = carried["commons"]
    got = gross["commons"] + recovered - own["debt"]
    own["debt"] = 0 if got >= 0 else -got
    lines["commons"].update(recovered=recovered, payout=max(got, 0), carried_out=-own["debt"])
    for currency, clawbacks in credit.standing_clawbacks.items():
        standing = purses.setdefault(tuple(currency), new_purse())["accounts"]
        for client, amount in clawbacks.items():
            standing.setdefault(client, new_account())["clawback"] += amount
    for other in purses.values():
        if other is not purse:  # who has nothing in a currency that stands is not named there
            other["accounts"] = {name: each for name, each in other["accounts"].items() if each != new_account()}
    return pool, fee, lines


def new_purse():
    """Nothing is carried."""
    return {"accounts": {}, "pool": Fraction(0), "fee": Fraction(0)}


def new_account():
    """Nothing is carried by one account."""
    return {"residue": Fraction(0), "carry": 0, "held": 0, "debt": 0, "holdbacks": [], "clawback": 0}


def due_back(client, own, credit):
    """What is taken back from a client in this period, of now and of while its currency stood."""
    return credit.clawbacks.get(client, 0) + own["clawback"]


def gross_alone(period, credit, policy, purse):
    """Account -> gross of a period, with what it began with left as it was."""
    before = {"pool": purse["pool"], "fee": purse["fee"]}
    pool = pool_of(credit, policy, before)
    distributable = pool - fee_of(pool, policy, before)
    parts = capped_parts(period, credit, policy, distributable)
    return gross_of(period, credit, policy, purse, parts, distributable)


def capped_parts(period, credit, policy, distributable):
    """Account -> minor units as a fraction."""
    parts, weights = parts_of(period, credit, policy, max(distributable, 1))
    return fill_up_to_caps(period, parts, weights, policy, max(distributable, 1))


def gross_of(period, credit, policy, purse, parts, distributable):
    """Account -> whole units of its part."""
    accounts = {"commons", *parts, *credit.credit, *credit.late, *credit.held, *credit.clawbacks, *purse["accounts"]}
    entitlements = {account: parts.get(account, Fraction(0)) if distributable else Fraction(0) for account in accounts}
    carried = {account: purse["accounts"].get(account, new_account()) for account in accounts}
    return round_slowly(period, entitlements, carried, distributable)


def pool_of(credit, policy, purse):
    """Minor units in all; a fraction of one stays in the purse."""
    if policy.allocation == "user_centric":
        return sum(policy.fees[application] for application in policy.fees)
    if policy.pool is not None:
        return policy.pool
    exact = Fraction(policy.price_per_million_tokens) * max(0, credit.tokens) / 1_000_000 + purse["pool"]
    purse["pool"] = exact - math.floor(exact)
    return math.floor(exact)


def fee_of(pool, policy, purse):
    """Minor units of the fee; a fraction of one stays in the purse."""
    exact = pool * policy.fee_percent / 100 + purse["fee"]
    purse["fee"] = exact - math.floor(exact)
    return math.floor(exact)


def largest_remainder(total, weights, salt):
    """Whole parts first, then one unit at a time to the largest remainder left."""
    whole = sum(Fraction(weight) for weight in weights.values())
    quotas = {account: total * weight / whole for account, weight in weights.items()}
    amounts = {account: math.floor(quota) for account, quota in quotas.items()}
    waiting = set(quotas)
    while sum(amounts.values()) < total:
        best = best_of({account: quotas[account] - amounts[account] for account in waiting}, salt)
        amounts[best] += 1
        waiting.remove(best)
    return amounts


def best_of(numbers, salt):
    """The account with the largest number, of equal ones the one with the smallest hash."""
    top = max(numbers.values())
    hashes = {
        sha256(f"{salt}\0{account}".encode()).hexdigest(): account for account in numbers if numbers[account] == top
    }
    return hashes[min(hashes)]


def parts_of(period, credit, policy, distributable):
    """Account -> minor units as a fraction, before caps; and the weights by which an excess is shared."""
    paid = [account for account in credit.credit if credit.credit[account] > 0]
    if policy.commons == "distribute" and "commons" in paid:
        paid.remove("commons")
    total = distributable * TRILLION
    if policy.allocation == "pro_rata":
        weights = {account: Fraction(credit.credit[account]) for account in paid}
        if not weights:
            return {"commons": Fraction(distributable)}, {}
        shared = largest_remainder(total, weights, period)
        return {account: Fraction(amount, TRILLION) for account, amount in shared.items()}, weights
    trillionths = {"commons": 0}
    fees = {application: Fraction(fee) for application, fee in policy.fees.items()}
    if sum(fees.values()) == 0:
        return {"commons": Fraction(distributable)}, {}
    for application, brought in largest_remainder(total, fees, period).items():
        tokens = credit.tokens_by_application.get(application, 0)
        own = credit.by_application.get(application, {})
        weights = {account: Fraction(own[account]) for account in own if own[account] > 0 and account in paid}
        if tokens <= 0 or not weights or not fees[application]:
            trillionths["commons"] += brought
            continue
        contribution = fees[application]
        if policy.max_price_per_million_tokens is not None:
            worth = Fraction(policy.max_price_per_million_tokens * tokens, 1_000_000)
            contribution = min(contribution, worth)
        by_credit = math.floor(brought * contribution / fees[application])
        trillionths["commons"] += brought - by_credit
        for account, amount in largest_remainder(by_credit, weights, period).items():
            trillionths[account] = trillionths.get(account, 0) + amount
    parts = {account: Fraction(amount, TRILLION) for account, amount in trillionths.items()}
    return parts, parts


def fill_up_to_caps(period, parts, weights, policy, distributable):
    """Caps by rising water: the client that reaches its cap first is filled first."""
    clients = [account for account in parts if account != "commons"]
    caps = {client: distributable * policy.caps.get(client, policy.cap_percent) / 100 for client in clients}
    if not any(parts[client] > caps[client] for client in clients):
        return parts
    filled = {account: Fraction(0) for account in parts}
    left = sum(parts[client] for client in clients)
    thirsty = sorted(
        (client for client in clients if weights[client]), key=lambda client: caps[client] / weights[client]
    )
    while thirsty and weights[thirsty[0]] * left / sum(weights[client] for client in thirsty) > caps[thirsty[0]]:
        first = thirsty.pop(0)
        filled[first] = caps[first]
        left -= caps[first]
    if thirsty:
        shared = largest_remainder(int(left * TRILLION), {client: weights[client] for client in thirsty}, period)
        filled.update({client: Fraction(amount, TRILLION) for client, amount in shared.items()})
    filled["commons"] = distributable - sum(filled[client] for client in clients)
    return filled


def round_slowly(period, entitlements, carried, distributable):
    """Whole units, the next one always to whoever rounding owes most; the commons gets what is left."""
    gross = {account: math.floor(entitlement) for account, entitlement in entitlements.items()}
    owed = {account: carried[account]["residue"] + entitlements[account] - gross[account] for account in entitlements}
    spare = distributable - sum(gross.values())
    open_clients = {a for a in entitlements if a != "commons" and entitlements[a] != gross[a]}
    for client in list(open_clients):
        if owed[client] >= 1:
            gross[client] += 1
            open_clients.remove(client)
            spare -= 1
        elif owed[client] <= 0:
            open_clients.remove(client)
    waiting = {*open_clients, "commons"}
    while spare > 0 and waiting:
        best = best_of({account: owed[account] for account in waiting}, period)
        gross[best] += 1
        waiting.remove(best)
        spare -= 1
    gross["commons"] += spare
    return gross


def pay(client, purse, gross, credit, policy, ordinal, on_hold, recovered):
    """One client's money through its purse: first aside, then what falls due, then what it owes, then what it gets."""
    line = {"carried_in": purse["carry"] - purse["debt"], "clawback": due_back(client, purse, credit)}
    purse["clawback"] = 0
    line["recovered"] = recovered
    line["holdback"] = math.floor(gross * policy.holdback_percent / 100)
    cash = gross - line["holdback"] + purse["carry"] + recovered
    line["released_holdback"] = sum(amount for release, amount in purse["holdbacks"] if release <= ordinal)
    cash += line["released_holdback"]
    kept = [[release, amount] for release, amount in purse["holdbacks"] if release > ordinal]
    if line["holdback"]:
        kept = sorted([*kept, [ordinal + policy.holdback_release_after, line["holdback"]]])
    line["released_hold"] = 0
    if not on_hold:
        line["released_hold"], purse["held"] = purse["held"], 0
        cash += line["released_hold"]
    owed = purse["debt"] + line["clawback"]
    given = min(cash, owed)
    cash, owed = cash - given, owed - given
    line["drawn_holdback"] = 0
    for holdback in kept:
        taken = min(holdback[1], owed)
        holdback[1] -= taken
        owed -= taken
        line["drawn_holdback"] += taken
    line["gave_back"] = given + line["drawn_holdback"]
    merged = {release: 0 for release, amount in kept if amount}
    for release, amount in kept:
        if amount:
            merged[release] += amount
    line["held"] = line["payout"] = 0
    if on_hold:
        line["held"], cash = cash, 0
        purse["held"] += line["held"]
    elif cash >= policy.minimum_payout:
        line["payout"], cash = cash, 0
    purse.update(carry=cash, debt=owed, holdbacks=list(merged.items()))
    line.update(carried_out=cash - owed, held_total=purse["held"], holdbacks=tuple(merged.items()))
    return line
