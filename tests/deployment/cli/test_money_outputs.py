"""Every place that shows money shows the same amount: the table of amounts goes through each of them."""

import csv
import io
import json
from pathlib import Path

import pytest

from deployment.books import statement_page
from deployment.books.settlement_table import table_of
from deployment.cli.books.period import show_settlement
from deployment.cli.output import console
from deployment.console import rendering as pages
from deployment.schemas.periods import Line as ShownLine
from rewards.periods.statement_bodies import MONEY_IN, MONEY_OUT
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.document import Settlement
from rewards.settlement.policy import Policy
from rewards.settlement.settle import settle
from tests.deployment.console.documents import Document
from tests.rewards.amounts import AMOUNTS, DIGITS, plainly, readably

CURRENCIES = {0: "JPY", 1: "EUR", 2: "EUR", 3: "KWD", 4: "CLF"}
"""By their digits; no currency has one, but an old policy in the books may."""

every_amount = pytest.mark.parametrize("amount", AMOUNTS)
every_digits = pytest.mark.parametrize("digits", DIGITS)


def settlement_of(amount: int, digits: int) -> Settlement:
    """A settlement with one line, every amount of which is this one, also where settling would refuse it."""
    fields = {"currency": CURRENCIES[digits], "minor_digits": digits, "pool": 100}
    policy = Policy.from_mapping(fields, stored=True)
    found = settle("p", 1, PeriodCredit((0, 1), 1, {"commons": 1_000_000}), policy)
    for name in ("gross", "carried_in", "payout", "carried_out", "held_total"):
        object.__setattr__(found.lines[0], name, amount)
    return found


@every_amount
@every_digits
def test_the_command_line_s_table(monkeypatch, capsys, amount: int, digits: int) -> None:
    """`period preview | close | finalise` show it in the account's row and in the sum."""
    monkeypatch.setattr(console, "_width", 200)
    show_settlement(settlement_of(amount, digits), "preview", as_json=False)
    out = capsys.readouterr().out
    lines = [line.replace("┃", "│").split("│")[1:-1] for line in out.splitlines() if line[:1] in "│┃"]
    table = {row[0].strip(): [cell.strip() for cell in row[3:]] for row in lines}

    assert f"in {CURRENCIES[digits]}\n" in out
    for name in ("commons", "sum"):
        assert {"gross": readably(amount, digits), "= payout": readably(amount, digits)}.items() <= dict(
            zip(table["account"], table[name], strict=True)
        ).items()
        assert {readably(amount, digits)} == set(table[name])


@every_amount
@every_digits
def test_the_command_line_s_json(capsys, amount: int, digits: int) -> None:
    """`--json` gives the minor units, with the currency and its digits beside them."""
    show_settlement(settlement_of(amount, digits), "preview", as_json=True)
    document = json.loads(capsys.readouterr().out)

    assert amount == int(document["lines"][0]["payout"])
    assert (CURRENCIES[digits], digits) == (document["policy"]["currency"], document["policy"]["minor_digits"])


@every_amount
@every_digits
def test_the_console_s_settlement_and_preview(amount: int, digits: int) -> None:
    """The row of the account, the sum, what is carried, and what a preview changes."""
    shown = ShownLine.model_validate(settlement_of(amount, digits).lines[0].to_document())
    table = table_of([shown], {}, difference={"commons": amount})
    module = pages._ENVIRONMENT.get_template("money.html").make_module({"colours": dict})
    page = Document(str(module.settlement(table, "S", digits, 0, "draft")) + str(module.carried(table, digits)))
    row, total = (page.table("S").row(name) for name in ("commons", "Sum"))

    for cells in (row, total):
        assert {readably(amount, digits)} == {cells[name] for name in ("Gross", "= Payout")}
        assert readably(amount, digits) == cells["Payout against draft"].lstrip("▲▼= +")
    if amount:
        assert readably(amount, digits) == page.table("What is carried").row("commons")["To the next period"]


@every_amount
@every_digits
def test_the_console_s_facts(amount: int, digits: int) -> None:
    """Pool, fee, payouts and the rows of statements go through the filter with the currency behind."""
    template = pages._ENVIRONMENT.from_string("{{ amount | money(currency, digits) }}")

    text = template.render(amount=amount, currency=CURRENCIES[digits], digits=digits)
    assert f"{readably(amount, digits)} {CURRENCIES[digits]}" == text


def statement_of(amount: int, digits: int) -> dict:
    """What a statement says of money."""
    return {"currency": CURRENCIES[digits], "minor_digits": digits, "client": "bank", "period": "p"} | {
        "money": dict.fromkeys((*MONEY_IN, *MONEY_OUT), str(amount))
    }


@every_amount
@every_digits
def test_the_statement_as_csv(amount: int, digits: int) -> None:
    """A spreadsheet gets minor units and a plain decimal number, with a point and no thousands apart."""
    _, *rows = csv.reader(io.StringIO(statement_page.table(statement_of(amount, digits))))

    assert len(MONEY_IN) + len(MONEY_OUT) == len(rows)
    assert {(str(amount), plainly(amount, digits))} == {(row[1], row[2]) for row in rows}


@every_amount
@every_digits
def test_the_statement_as_a_page(amount: int, digits: int) -> None:
    """Every line of money, thousands apart by narrow spaces, the currency behind a space that does not break."""
    money = readably(amount, digits).replace(",", "\u202f") + "\u00a0" + CURRENCIES[digits]
    page = Document(statement_page._money(statement_of(amount, digits)))
    cells = [row[1] for row in page.tables[0].rows if row[0] != "In all"]

    assert {" ".join(money.split())} == set(cells)


def test_the_templates_take_no_amount_apart_themselves() -> None:
    """Neither a division nor a format of numbers with decimal places is left in a template."""
    files = sorted(Path(pages.__file__).with_name("templates").glob("*.html"))

    assert len(files) >= 15
    for file in files:
        text = file.read_text(encoding="utf-8")
        for forbidden in ("// 1", "% 1000", "{:,", ":06d", "| abs"):
            assert forbidden not in text, (file.name, forbidden)
