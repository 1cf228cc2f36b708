"""Books with something of everything, in which what belongs to one client is told apart from what is another's."""

from dataclasses import dataclass
from pathlib import Path

from deployment.books.books import Books
from rewards import periods
from rewards.credit import Receipt, canonical_bytes
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.periods import holds
from rewards.settlement.policy import Policy
from rewards.settlement.policy_file import load_policy
from rewards.signing.keys import SigningKey
from tests.deployment.gateway.engines import CARD

ORIGIN = "hospital-net/ledger"
POLICY = Policy(currency="EUR", pool=9_876_543)
ROLES = ("application", "member", "operator", "auditor", "admin")


@dataclass(frozen=True)
class World:
    """The books, a key of each role (the member's client is the bank), and what a bank may not come to know.

    Attributes:
        secrets: texts that stand for other clients, for what they earned, for applications and for other keys.
    """

    books: Books
    keys: dict[str, str]
    secrets: tuple[str, ...]


def make_world(ledger: Ledger, keys: KeyRing, folder: Path) -> World:
    """A final period with every statement, a draft, an open one; a hold, a reversal, a seal; two applications."""
    made = {
        role: keys.create(role, f"label of {role}", actor="test", client="bank" if role == "member" else None)
        for role in ROLES
    }
    shop, desk = (made["application"].split("_")[1], keys.create("application", "desk", actor="test").split("_")[1])
    path = folder / "signing.key"
    SigningKey.generate(ORIGIN).save(path)
    (folder / "policy.yaml").write_bytes(canonical_bytes(POLICY.model_dump(mode="json", exclude_none=True)))
    ledger.append(receipt("shared-one", shop, {"bank": 1_234_567, "clinic": 2_765_413, "commons": 20}))
    ledger.append(receipt("clinic-alone", desk, {"clinic": 2_999_983, "commons": 17}))
    ledger.append(receipt("bank-alone", shop, {"bank": 999_979, "commons": 21}))
    policy = load_policy(folder / "policy.yaml")
    periods.close(ledger, "first", policy, made["operator"].split("_")[1])
    ledger.append(receipt("shared-two", desk, {"bank": 400_009, "clinic": 599_971, "commons": 20}))
    ledger.append(receipt("clinic-again", desk, {"clinic": 1_999_957, "commons": 43}))
    ledger.reverse("clinic-again", "a secret reason to reverse", made["operator"].split("_")[1])
    holds.place(ledger, "client", "clinic", "a secret reason to hold", made["operator"].split("_")[1])
    draft = policy.model_copy(update={"dispute_days": 30})
    periods.close(ledger, "second", draft, made["operator"].split("_")[1])
    ledger.append(receipt("shared-three", shop, {"bank": 300_007, "clinic": 1_699_963, "commons": 30}))
    key = SigningKey.load(path)
    seal(ledger, key, ORIGIN)
    secrets = (
        *("clinic", "Clinic", "a secret reason", "label of", "desk", shop, desk),
        *("2765413", "2999983", "599971", "1999957", "1699963", str(2_765_413 + 2_999_983)),
        *(made[role].split("_")[1] for role in ("auditor", "admin")),
        *_payouts(ledger, "clinic"),
    )
    return World(Books(ledger, keys, path, folder / "policy.yaml"), made, secrets)


def receipt(response_id: str, application: str, amounts: dict[str, int]) -> Receipt:
    """A receipt of these micro-credits, which are a whole number of tokens."""
    tokens, rest = divmod(sum(amounts.values()), 1_000_000)
    assert rest == 0, f"{response_id} is not a whole number of tokens: {rest}"
    return Receipt(
        response_id=response_id,
        created_at_us=1_700_000_000_000_000,
        application=application,
        consortium=CARD.name,
        model_sha256=CARD.global_sha256,
        method="credit",
        settings={"nodes": 2},
        version="1",
        tokens=tokens,
        amounts=amounts,
        measurement={"gain": 0.3},
        duration_us=1_500_000,
    )


def _payouts(ledger: Ledger, client: str) -> list[str]:
    """What a client is paid, in minor units, in each closed period; large enough to be no other number by chance."""
    lines = [line for period in periods.all(ledger) for line in period.settlement.lines if line.account == client]
    return [str(amount) for line in lines for amount in (line.gross, line.payout) if amount > 10_000]
