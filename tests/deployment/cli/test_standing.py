"""The command line shows what stands in other currencies beside a settlement."""

import pytest

from deployment.cli.books.period import show_settlement
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.policy import Policy
from rewards.settlement.settle import settle


def test_what_stands_in_another_currency_is_a_table_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A holdback in EUR is listed under EUR while the settlement itself is in JPY."""
    credit = PeriodCredit((0, 1), 1, {"bank": 1})
    euro = settle("p1", 1, credit, Policy(currency="EUR", pool=1050, holdback_percent=10))
    policy = Policy(currency="JPY", pool=7)
    show_settlement(settle("p2", 2, credit, policy, euro.opening(policy)), "preview", as_json=False)
    told = capsys.readouterr().out

    assert "standing in EUR until a period is settled in it" in told
    assert "1.05 EUR" in told
