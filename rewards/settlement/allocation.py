"""Who is entitled to what of a period's pool: credit and a policy in, exact parts out. Knows no rounding to cents.

Parts are integers of trillionths of a minor unit, so that nothing downstream needs fractions that grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rewards.credit import COMMONS, PENDING
from rewards.errors import CreditError
from rewards.largest_remainder import divide
from rewards.settlement.balances import Purse
from rewards.settlement.pending import Sampling, Strata, sampling_of, settled_credit
from rewards.settlement.policy import LARGEST, Currency, Policy
from rewards.settlement.rounding import UNIT

_MILLION = 10**6
_PERCENT = 100
_NOTHING = Purse()


@dataclass(frozen=True)
class PeriodCredit:
    """All that the ledger says about a window; integers only.

    Attributes:
        window: (after, up to): receipts with after < sequence ≤ up to.
        tokens: generated tokens, net of reversals.
        credit: account -> micro-credits, net; may be negative.
        by_application: application key id -> account -> micro-credits, net; sums to `credit`. Allocation
            `user_centric` needs it.
        tokens_by_application: application key id -> tokens, net; sums to `tokens`. Likewise.
        late: account -> the part of `credit` that is of responses made before the previous period ended; shown only.
        held: account -> credit left out because of holds on responses; shown only.
        clawbacks: client -> minor units to take back, since the responses they were paid for were reversed.
        standing_clawbacks: currency -> the same, of periods that were settled in another currency than this one.
        strata: what the pending account of `credit` consists of, and what was measured beside it.
        late_pending: the part of what is pending that is late, as in `late`; shown only.
        held_pending: pending credit left out because of holds, as in `held`; shown only.

    Raises:
        CreditError: something is not an integer in its range, an account is no name, credit is pending that no strata
            account for, or a claw-back is from the commons; the account is named.
    """

    window: tuple[int, int]
    tokens: int
    credit: Mapping[str, int]
    by_application: Mapping[str, Mapping[str, int]] | None = None
    tokens_by_application: Mapping[str, int] | None = None
    late: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    clawbacks: Mapping[str, int] = field(default_factory=dict)
    standing_clawbacks: Mapping[Currency, Mapping[str, int]] = field(default_factory=dict)
    strata: Strata = field(default_factory=dict)
    late_pending: int = 0
    held_pending: int = 0

    def __post_init__(self) -> None:
        after, up_to = self.window
        if type(after) is not int or type(up_to) is not int or not 0 <= after <= up_to <= LARGEST:
            raise CreditError(f"window must be two sequences of receipts, 0 ≤ after ≤ up to, not {self.window!r}")
        if type(self.tokens) is not int or abs(self.tokens) > LARGEST:
            raise CreditError(f"tokens must be an integer up to {LARGEST}, not {self.tokens!r}")
        pending = sum(stratum.pending_credit for stratum in self.strata.values())
        check_amounts("credit", self.credit, pending)
        for what, amounts in (("late credit", self.late), ("held credit", self.held)):
            check_amounts(what, amounts)
        for clawbacks in (self.clawbacks, *self.standing_clawbacks.values()):
            check_amounts("claw-back", clawbacks)
            for client, amount in clawbacks.items():
                if client == COMMONS or amount < 0:
                    raise CreditError(f"claw-back of {client!r} must be from a client and at least 0, not {amount}")

    def settle_pending(self, salt: str) -> PeriodCredit:
        """The same with what is pending on the accounts that it is settled to (step 0)."""
        if PENDING not in self.credit:
            return self
        credit = _without_pending(self.credit)
        own = {application: _without_pending(amounts) for application, amounts in (self.by_application or {}).items()}
        for (application, account), amount in settled_credit(self.strata, salt).items():
            credit[account] = credit.get(account, 0) + amount
            if application:
                own[application][account] = own[application].get(account, 0) + amount
        return replace(self, credit=credit, by_application=None if self.by_application is None else own)

    def sampling(self, salt: str) -> Sampling | None:
        """What there is to say of how that is settled; None where nothing was pending."""
        return sampling_of(self.strata, self.tokens, salt, self.late_pending, self.held_pending)

    @property
    def accounts(self) -> frozenset[str]:
        """Every account that is mentioned."""
        return frozenset({*self.credit, *self.late, *self.held, *self.clawbacks})


@dataclass(frozen=True)
class Allocation:
    """A pool and who is entitled to what of it.

    Attributes:
        pool: minor units in all.
        fee: minor units for whoever runs the service.
        parts: account -> its part of what is distributable, ≥ 0; an account without one is absent.
        whole: what the parts sum to: trillionths of the distributable minor units, or of one when there are none.
        unclaimed: nobody whom the policy pays has positive credit; the commons has the whole.
        pool_fraction: trillionths of a minor unit by which this pool and those before were rounded down.
        fee_fraction: the same of the fees.
    """

    pool: int
    fee: int
    parts: Mapping[str, int]
    whole: int
    unclaimed: bool
    pool_fraction: int
    fee_fraction: int

    @property
    def distributable(self) -> int:
        """Minor units that are distributed: the pool without the fee."""
        return self.pool - self.fee


def allocate(
    period: str, credit: PeriodCredit, policy: Policy, purse: Purse = _NOTHING, *, is_first_rule: bool = False
) -> Allocation:
    """The pool of a period and the parts in it, after fee and caps.

    Credit is clipped at zero here, net of the whole period and never earlier. `period` is the salt of the tie-breaks.
    What rounding kept of earlier pools and fees (`purse`) is added before this one's are rounded down; by the first
    rule it was lost.

    Raises:
        CreditError: the pool is larger than JSON keeps exact, or `user_centric` lacks the credit by application, or
            that does not sum to the credit.
    """
    pool, pool_fraction = _pool(credit, policy, purse.pool_fraction)
    fee, fee_fraction = divmod(int(pool * policy.fee_percent * (UNIT // _PERCENT)) + purse.fee_fraction, UNIT)
    whole = max(pool - fee, 1) * UNIT
    paid = {
        account: amount
        for account, amount in credit.credit.items()
        if amount > 0 and not (account == COMMONS and policy.commons == "distribute")
    }
    if policy.allocation == "user_centric":
        parts = _by_application(period, credit, policy, paid, whole, 1 if is_first_rule else _MILLION)
        weights: Mapping[str, int] = parts
        unclaimed = not any(_weights(credit, application, paid) for application in policy.fees or ())
    else:
        weights, unclaimed = paid, not paid
        parts = divide(whole, paid, salt=period) if paid else {COMMONS: whole}
    parts = _cap_parts(period, parts, weights, policy)
    assert sum(parts.values()) == whole
    if is_first_rule:
        pool_fraction = fee_fraction = 0
    return Allocation(pool, fee, parts, whole, unclaimed, pool_fraction, fee_fraction)


def check_amounts(what: str, amounts: Mapping[str, int], pending: int = 0) -> None:
    """Refuse accounts that are no names or pending, but for what is known to be, and amounts that are no integers.

    Raises:
        CreditError: says what, of which account, and what is wrong with it.
    """
    for account, amount in amounts.items():
        if not isinstance(account, str) or not account or not account.isprintable():
            raise CreditError(f"account of {what} must be non-empty printable text, not {account!r}")
        if account == PENDING and (not pending or amount != pending):
            raise CreditError(f"{what} of {amount} is {PENDING}; attribute it before settling")
        if type(amount) is not int:
            raise CreditError(f"{what} of {account!r} must be an integer, not {amount!r}")


def _without_pending(amounts: Mapping[str, int]) -> dict[str, int]:
    return {account: amount for account, amount in amounts.items() if account != PENDING}


def _pool(credit: PeriodCredit, policy: Policy, fraction: int) -> tuple[int, int]:
    """The pool in whole minor units, and the trillionths of one that are left."""
    if policy.fees is not None:
        pool = sum(policy.fees.values())
    elif policy.price_per_million_tokens is not None:
        exact = policy.price_per_million_tokens * max(credit.tokens, 0) * (UNIT // _MILLION)
        pool, fraction = divmod(exact + fraction, UNIT)
    else:
        assert policy.pool is not None
        pool = policy.pool
    if pool > LARGEST:
        raise CreditError(f"the pool is {pool} minor units, more than {LARGEST}; lower the price or the fees")
    return pool, fraction


def _by_application(
    period: str, credit: PeriodCredit, policy: Policy, paid: Mapping[str, int], whole: int, parts_of_unit: int
) -> dict[str, int]:
    """The whole, split by the applications' fees and then by the credit in each application's own responses.

    The commons gets what exceeds an application's cap, and the fee of an application without usage or credit. A cap is
    a whole number of parts of a minor unit, `parts_of_unit` of which make one.
    """
    assert policy.fees is not None
    _check_applications(credit)
    parts = {COMMONS: 0}
    brought = divide(whole, policy.fees, salt=period) if any(policy.fees.values()) else {}
    for application, part in brought.items():
        weights = _weights(credit, application, paid)
        contribution = _contribution(credit, policy, application, parts_of_unit)
        to_clients = part * contribution // (max(policy.fees[application], 1) * parts_of_unit)
        split = divide(to_clients, weights, salt=period) if weights else {}
        for account, amount in split.items():
            parts[account] = parts.get(account, 0) + amount
        parts[COMMONS] += part - sum(split.values())
    parts[COMMONS] += whole - sum(brought.values())
    return parts


def _contribution(credit: PeriodCredit, policy: Policy, application: str, parts_of_unit: int) -> int:
    """What of an application's fee goes by credit, in parts of a minor unit: all of it, or what its usage is worth."""
    assert policy.fees is not None and credit.tokens_by_application is not None
    fee, price = policy.fees[application] * parts_of_unit, policy.max_price_per_million_tokens
    if price is None:
        return fee
    tokens = max(credit.tokens_by_application.get(application, 0), 0)
    return min(fee, price * tokens * parts_of_unit // _MILLION)


def _weights(credit: PeriodCredit, application: str, paid: Mapping[str, int]) -> dict[str, int]:
    """Positive credit in the responses of an application, of those who are paid; none without usage."""
    assert credit.by_application is not None and credit.tokens_by_application is not None
    if credit.tokens_by_application.get(application, 0) <= 0:
        return {}
    own = credit.by_application.get(application, {})
    return {account: amount for account, amount in own.items() if amount > 0 and account in paid}


def _cap_parts(period: str, parts: dict[str, int], weights: Mapping[str, int], policy: Policy) -> dict[str, int]:
    """Parts under the clients' caps: what exceeds them is shared by weight among the clients below theirs.

    A share of the excess may reach the next cap, so this repeats, at most once per client. The commons keeps its part,
    and gets what no client may take. Caps have 6 decimals and the whole 12, so a cap is a whole number of trillionths.
    """
    whole = sum(parts.values())
    caps = {client: int(whole * policy.cap(client) / _PERCENT) for client in parts if client != COMMONS}
    if all(parts[client] <= cap for client, cap in caps.items()):
        return parts
    capped = capped_clients(sum(parts[client] for client in caps), weights, caps)
    below = {client: weights[client] for client in caps if client not in capped}
    left = sum(parts[client] for client in caps) - sum(capped.values())
    shared = divide(left, below, salt=period) if sum(below.values()) else {}
    commons = whole - sum(capped.values()) - sum(shared.values())
    return {**dict.fromkeys(parts, 0), **capped, **shared, COMMONS: commons}


def capped_clients(of_clients: int, weights: Mapping[str, int], caps: Mapping[str, int]) -> dict[str, int]:
    """The clients whose part of `of_clients` by weight is more than their cap, however often it is shared anew.

    Args:
        of_clients: what the clients have of the whole, together.
        weights: client -> weight; those without a cap do not count.
        caps: client -> the most that it may have.

    Returns:
        Client -> its cap, for each that is cut to it.
    """
    below = {client: weights[client] for client in caps}
    left = of_clients
    capped: dict[str, int] = {}
    while below:
        sum_below = sum(below.values())
        over = [client for client, weight in below.items() if weight * left > caps[client] * sum_below]
        if not over:
            break
        for client in over:
            capped[client] = caps[client]
            left -= caps[client]
            del below[client]
    return capped


def _check_applications(credit: PeriodCredit) -> None:
    if credit.by_application is None or credit.tokens_by_application is None:
        raise CreditError("allocation user_centric needs the credit and the tokens by application; they are missing")
    sums: dict[str, int] = {}
    for application, amounts in credit.by_application.items():
        check_amounts(f"credit from {application!r}", amounts)
        for account, amount in amounts.items():
            sums[account] = sums.get(account, 0) + amount
    for account in sorted({*sums, *credit.credit}):
        if sums.get(account, 0) != credit.credit.get(account, 0):
            raise CreditError(
                f"credit of {account!r} by application sums to {sums.get(account, 0)}, "
                f"not to its credit of {credit.credit.get(account, 0)}"
            )
    if sum(credit.tokens_by_application.values()) != credit.tokens:
        raise CreditError(
            f"tokens by application sum to {sum(credit.tokens_by_application.values())}, not to {credit.tokens}"
        )
