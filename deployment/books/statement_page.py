"""A statement for people and for spreadsheets: one printable page of HTML, and its money as CSV. Checks nothing.

The page stands alone: no script, nothing is fetched, and every text from outside is escaped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from html import escape
from typing import Any

from deployment.books import statement_terms
from rewards import money
from rewards.files.plain_text import one_line
from rewards.files.spreadsheet_cells import cell
from rewards.moments import text_of
from rewards.periods.statement_bodies import MONEY_IN, MONEY_OUT
from rewards.statements import part_of

LABELS = {
    "gross": "Gross: the part in whole units",
    "carried_in": "Carried over from the period before",
    "released_holdback": "Holdback released",
    "released_hold": "Released from hold",
    "drawn_holdback": "Holdback used against a debt",
    "recovered": "Recovered from others",
    "clawback": "Taken back for reversed responses",
    "holdback": "Kept back for a later period",
    "held": "Withheld by a hold",
    "payout": "To be paid",
    "carried_out": "Carried to the next period",
}
"""What each line of money is called, in the order in which they are shown."""

MOST_REVERSALS = 8
"""So many reversed responses are on a page that is printed; all of them are in the statement."""

_STYLE = """
@page { size: A4; margin: 16mm 18mm }
* { box-sizing: border-box }
body { font: 10.5pt/1.45 "Helvetica Neue", Helvetica, Arial, sans-serif; color: #1c2430; background: #fff;
       max-width: 174mm; margin: 10mm auto; padding: 0 4mm }
@media print { body { margin: 0; padding: 0; max-width: none; font-size: 9.5pt; line-height: 1.35 } }
header { display: flex; justify-content: space-between; align-items: flex-end; border-bottom: 2px solid #1c2430;
         padding-bottom: 3mm }
h1 { font-size: 19pt; line-height: 1.15; margin: 0; font-weight: 600 }
h2 { font-size: 9pt; margin: 4mm 0 1mm; letter-spacing: .07em; text-transform: uppercase; color: #5a6675 }
header p { margin: 0; color: #5a6675 }
.paid { text-align: right }
.paid b { display: block; font-size: 19pt; line-height: 1.15; font-weight: 600; color: #1c2430; white-space: nowrap }
.columns { display: grid; grid-template-columns: 1fr 1fr; column-gap: 10mm }
dl { display: grid; grid-template-columns: auto 1fr; column-gap: 5mm; row-gap: .6mm; margin: 0 }
dt { color: #5a6675 }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums }
td { padding: .7mm 0; border-bottom: 1px solid #dfe4ea }
td + td { text-align: right; white-space: nowrap }
tr.sum td { font-weight: 600; border-bottom: 2px solid #1c2430 }
tr.none td { color: #5a6675 }
.signed, .terms { font-size: 8.5pt; color: #3a4553 }
.terms dl { font-size: 7.5pt; line-height: 1.3; row-gap: .3mm }
.terms { display: flex; column-gap: 8mm }
.terms section { flex: 1 1 0 }
.terms section:first-child { flex-grow: 1.6 }
.terms h2 { margin: 3mm 0 1mm }
.signed dd { text-align: left }
code { font: 8pt/1.4 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere }
"""


def page(document: Mapping[str, Any]) -> str:
    """One page of HTML for a statement as `statements.issue` gave it; prints on one sheet of A4."""
    period, name = _escape(document["period"]), _escape(document["name"])
    payout = _amount(document, document["money"]["payout"])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Statement {period}: {name}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<div><p>{_escape(document["consortium"])} · statement of period {period}</p><h1>{name}</h1></div>
<p class="paid">to be paid<b>{payout}</b></p>
</header>
<div class="columns">
<section><h2>Period</h2>{_facts(_period(document))}</section>
<section><h2>Credit</h2>{_facts(_credit(document))}</section>
</div>
<h2>Money</h2>
{_money(document)}
{_facts(_standing_rows(document)) if document.get("standing") else ""}
{_terms(document)}
<h2>Signature</h2>
<div class="signed">{_facts(_signature_rows(document))}
<p>To check it offline, have the statement as JSON and the consortium's public key, and run<br>
<code>protoken statement verify FILE.json --public-key KEY</code></p></div>
</body>
</html>
"""


def table(document: Mapping[str, Any]) -> str:
    """The money of a statement as CSV: line, minor units, amount in the currency, and whose of which period it is."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(("line", "minor units", cell(f"amount in {document['currency']}"), "client", "period"))
    whose = (cell(document["client"]), cell(document["period"]))
    for line in _lines(document):
        minor_units = int(document["money"][line])
        rows.writerow((line, minor_units, money.write_plain(minor_units, document["minor_digits"]), *whose))
    return written.getvalue()


def title(document: Mapping[str, Any]) -> str:
    """Whose statement of which period it is, on one line."""
    return f"{document['name']}: statement of period {document['period']}, {document['consortium']}"


def rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a statement says as pairs of name and value: the period, the credit, each line of money, the signature."""
    amounts = [(LABELS[line], _amount_with_currency(document, document["money"][line])) for line in _lines(document)]
    terms = [*statement_terms.terms(document), *statement_terms.reversals(document)]
    standing = _standing_rows(document)
    return [*_period(document), *_credit(document), *amounts, *terms, *standing, *_signature_rows(document)]


def percent(share: str, decimals: int = 4) -> str:
    """A share "numerator/denominator", or as a decimal, as a percentage, rounded to so many decimals."""
    with localcontext(prec=60):
        exact = Fraction(share) * 100
        value = Decimal(exact.numerator) / exact.denominator
        return f"{value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN)} %"


def _period(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    after, up_to = document["window"]["after"], document["window"]["up_to"]
    return [
        ("Ended", text_of(document["until_us"])),
        ("Closed", text_of(document["closed_at_us"])),
        ("Final", text_of(document["final_at_us"])),
        ("Ledger receipts", f"{after + 1}–{up_to}" if up_to > after else "none of its own"),
        ("Tokens in all", _group_thousands(document["tokens"])),
        ("To be shared", _amount_with_currency(document, document["distributable"])),
    ]


def _credit(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Client", document["client"]),
        ("Responses credited", _group_thousands(document["receipts"])),
        ("Credit, in millionths of a token", _group_thousands(document["credit"])),
        ("of it late", _group_thousands(document["late_credit"])),
        ("not counted, as held", _group_thousands(document["held_credit"])),
        *_portions(document),
        *_sampling(document),
    ]


def _portions(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The share, which is of credit, and the part, which is of money; old statements tell the part alone."""
    part = ("Part of what is shared out", percent(str(part_of(document))))
    if "part" not in document:
        return [part]
    own, whole = (int(document["share"][name]) for name in ("numerator", "denominator"))
    of = f"{_group_thousands(own)} of {_group_thousands(whole)}"
    share = percent(f"{own}/{whole}") if whole > 0 else "none"
    return [("Share of all credit", f"{share}, {of}"), part]


def _sampling(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured, and what that leaves open; nothing where everything was."""
    sampling = document.get("sampling")
    if sampling is None:
        return []
    measured, responses = (_group_thousands(sampling[name]) for name in ("measured_responses", "responses"))
    return [
        ("Measured", f"{measured} of {responses} responses"),
        ("of the credit by the others", _group_thousands(sampling["settled_credit"])),
        ("Standard error, of all credit", f"± {percent(sampling['standard_error'])}"),
    ]


def _signature_rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    signature, log = document["signature"], document["log"]
    origin = log["checkpoint"].partition("\n")[0]
    return [
        ("Signed by", f"{signature['key_name']} ({signature['key_id']}), {signature['algorithm']}"),
        ("In the log", f"{origin}, leaf {log['leaf_index']} of {log['size']}"),
        ("Settlement", f"SHA-256 {document['settlement_sha256']}"),
        ("Exact part", str(part_of(document))),
    ]


def _money(document: Mapping[str, Any]) -> str:
    amounts = {line: int(text) for line, text in document["money"].items()}
    rows = [_row(document, line, amounts[line]) for line in _lines(document) if line in MONEY_IN]
    rows.append(_row(document, "In all", sum(amounts.get(line, 0) for line in MONEY_IN), "sum"))
    rows += [_row(document, line, amounts[line]) for line in _lines(document) if line in MONEY_OUT]
    rows.append(_row(document, "In all", sum(amounts[line] for line in MONEY_OUT), "sum"))
    return f"<table>{''.join(rows)}</table>"


def _lines(document: Mapping[str, Any]) -> list[str]:
    """The lines of money that a statement has, in the order in which they are shown."""
    return [line for line in LABELS if line in document["money"]]


def _standing_rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands in other currencies, until a period is settled in them."""
    rows = []
    for each in document.get("standing", ()):
        kept = int(each["held"]) + sum(int(holdback["amount"]) for holdback in each["holdbacks"])
        amount = max(int(each["carry"]), 0) + kept
        rows.append((f"Standing in {each['currency']}", _amount_with_currency(each, amount)))
        owed = int(each["clawback"]) + max(-int(each["carry"]), 0)
        if owed:
            rows.append((f"Owed in {each['currency']}", _amount_with_currency(each, owed)))
    return rows


def _row(document: Mapping[str, Any], line: str, minor_units: int, style: str = "") -> str:
    style = style or ("" if minor_units else "none")
    label = escape(LABELS.get(line, line))
    return f'<tr class="{style}"><td>{label}</td><td>{_amount(document, minor_units)}</td></tr>'


def _terms(document: Mapping[str, Any]) -> str:
    """How it was settled, beside what was taken back; nothing of a statement that says neither."""
    titles = {
        "How it was settled": statement_terms.terms(document),
        "Taken back": statement_terms.reversals(document, MOST_REVERSALS),
    }
    told = [f"<section><h2>{escape(title)}</h2>{_facts(pairs)}</section>" for title, pairs in titles.items() if pairs]
    return f'<div class="terms">{"".join(told)}</div>' if told else ""


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{_escape(name)}</dt><dd>{_escape(value)}</dd>' for name, value in pairs)}</dl>"


def _amount(document: Mapping[str, Any], minor_units: int | str) -> str:
    return _escape(_amount_with_currency(document, minor_units))


def _amount_with_currency(document: Mapping[str, Any], minor_units: int | str) -> str:
    amount = money.write_readable(int(minor_units), "", document["minor_digits"])
    return f"{_space_thousands(amount)}\u00a0{document['currency']}"


def _escape(text: str) -> str:
    return escape(one_line(text))


def _group_thousands(number: int | str) -> str:
    return _space_thousands(money.write_readable(int(number), "", 0))


def _space_thousands(written: str) -> str:
    """Thousands apart by a narrow space that does not break."""
    return written.replace(",", "\u202f")
