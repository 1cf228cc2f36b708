"""Seven periods of a small consortium in which every rule of settlement has something to say, explained.

Each line stands where it is said for the first time. `python -m tests.rewards.settlement.explained` writes this page.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from rewards.credit import COMMONS, PENDING
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.balances import Opening
from rewards.settlement.commons_explanation import explain_commons
from rewards.settlement.explanation import explain_line
from rewards.settlement.explanation_lines import Step
from rewards.settlement.pending import Stratum, StratumKey
from rewards.settlement.policy import Currency, Policy
from rewards.settlement.settle import settle

PAGE = Path(__file__).parents[2] / "fixtures" / "explanations" / "periods.txt"
_M = 1_000_000
_USUAL = {"currency": "EUR", "fee_percent": "2.5", "holdback_percent": 10, "holdback_release_after": 2}


def _sampled() -> dict[StratumKey, Stratum]:
    """Three measured responses and two that were not, of one bundle."""
    stratum = Stratum(pending=2, pending_credit=9 * _M)
    for tokens, bank in ((4, 3 * _M), (5, 1 * _M), (3, 3 * _M)):
        stratum.measure(tokens * _M, [("bank", bank), (COMMONS, 5), ("rider", tokens * _M - bank - 5)])
    return {StratumKey("law", "ab" * 32, "0.6"): stratum}


def _periods() -> Iterator[tuple[str, Policy, PeriodCredit, frozenset[str]]]:
    """What each period is about, by what it is paid, what was booked in it, and who is on hold."""
    credit = {"bank": 6 * _M, "clinic": 3 * _M, "rider": 1 * _M, "school": -7, COMMONS: 2 * _M}
    policy = Policy.from_mapping(
        _USUAL | {"pool": 100_001, "commons": "distribute", "minimum_payout": 20_000, "cap_percent": 40}
    )
    yield "a pool, caps, holdbacks and a minimum", policy, PeriodCredit((0, 9), 12, credit), frozenset()

    policy = Policy.from_mapping(
        _USUAL | {"price_per_million_tokens": 123_457, "commons": "retain", "caps": {"bank": 30}}
    )
    late, held = {"bank": 2 * _M, COMMONS: 5}, {"bank": 6, "clinic": 44, COMMONS: 3}
    credit = {"bank": 600_000 * _M, "clinic": 300_000 * _M, "rider": 3, COMMONS: 100_000 * _M}
    booked = PeriodCredit((9, 20), 1_000_000, credit, late=late, held=held, clawbacks={"rider": 12_000, "bank": 700})
    yield "a price, late credit, claw-backs, a client on hold", policy, booked, frozenset({"clinic"})

    strata = _sampled()
    policy = Policy.from_mapping(_USUAL | {"pool": 50_000, "commons": "distribute"})
    credit = {"bank": 7 * _M, "rider": 5 * _M - 15, COMMONS: 15, PENDING: 9 * _M}
    yield "responses that were not measured", policy, PeriodCredit((20, 30), 21, credit, strata=strata), frozenset()

    own = {"shop": {"bank": 5 * _M, COMMONS: 1 * _M}, "lab": {"clinic": 2 * _M, "rider": 4 * _M}}
    tokens = {"shop": 6, "lab": 6}
    policy = Policy.from_mapping({"currency": "EUR", "allocation": "user_centric", "fees": {"shop": 900, "lab": 301}})
    credit = {"bank": 5 * _M, "clinic": 2 * _M, "rider": 4 * _M, COMMONS: 1 * _M}
    booked = PeriodCredit(
        (30, 40), 12, credit, by_application=own, tokens_by_application=tokens, clawbacks={"bank": 99_999}
    )
    yield "fees of applications, and a debt", policy, booked, frozenset()

    standing = {Currency("EUR", 2): {"clinic": 150}}
    policy = Policy.from_mapping({"currency": "JPY", "pool": 0, "commons": "retain"})
    booked = PeriodCredit((40, 41), 1, {"bank": 1 * _M}, standing_clawbacks=standing)
    yield "another currency, and nothing to share", policy, booked, frozenset()

    policy = Policy.from_mapping(_USUAL | {"pool": 30_000, "commons": "distribute"})
    booked = PeriodCredit((41, 50), 3, {"bank": 2 * _M, "clinic": 1 * _M}, clawbacks={"rider": 1, "clinic": 5})
    yield "the first currency again", policy, booked, frozenset()

    booked = PeriodCredit((50, 60), 2, {COMMONS: 2 * _M, "school": 0})
    yield "credit of the commons alone", policy, booked, frozenset()


def _table(account: str, steps: tuple[Step, ...], said: set[tuple[str, ...]]) -> Iterator[str]:
    """The lines of an account that no account before it had, in these words."""
    rows = []
    for step in steps:
        words = (step.name, step.label, step.unit, step.formula, step.note)
        if words not in said:
            formula = f"`{step.formula}`" if step.formula else ""
            rows.append(f"| {step.label} | `{step.name}` | {step.amount} | {step.unit} | {formula} | {step.note} |")
        said.add(words)
    if rows:
        yield f"\n### {account}\n"
        yield "| line | name | amount | unit | formula | note |"
        yield "|---|---|---:|---|---|---|"
        yield from rows


def page() -> str:
    """The whole page."""
    lines = ["# Settlements explained, line by line", "", *__doc__.strip().splitlines()]
    opening, before, said = Opening(), None, set[tuple[str, ...]]()
    for ordinal, (title, policy, credit, held_clients) in enumerate(_periods(), 1):
        if before is not None:
            opening = before.opening(policy)
        before = settle(f"p{ordinal}", ordinal, credit, policy, opening, held_clients)
        lines.append(f"\n## p{ordinal}: {title}")
        for line in before.lines:
            if line.account == COMMONS:
                steps = explain_commons(before, opening)
            else:
                taken = {f"p{ordinal - 1}": credit.clawbacks[line.account]} if line.account in credit.clawbacks else {}
                steps = explain_line(before, opening, line.account, taken, ordinal % 2)
            lines += _table(line.account, steps, said)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
