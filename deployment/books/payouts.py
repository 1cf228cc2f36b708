"""What a final period pays, one row for each who is paid by it: a file for whoever makes the payments.

And what a transfer for a bank holds, which `sepa` makes.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from rewards import money
from rewards.credit import COMMONS
from rewards.files.spreadsheet_cells import cell
from rewards.periods import Period

COLUMNS = ("period", "client", "name", "currency", "minor units", "amount", "settlement")


@dataclass(frozen=True)
class TransferFile:
    """A file for a bank.

    Attributes:
        content: of the file.
        cents: client, or the commons, to what is transferred.
        staying: the same of payees that are the debtor itself.
    """

    content: bytes
    cents: Mapping[str, int]
    staying: Mapping[str, int]


def payout_file(period: Period, names: Mapping[str, str]) -> bytes:
    """The payouts of a final period as CSV, in the order of its settlement, also of those who get nothing.

    Args:
        period: final or paid.
        names: client -> display name.
    """
    settlement = period.final
    assert settlement is not None, "what a draft pays is not certain"
    policy = settlement.policy
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(COLUMNS)
    for line in settlement.lines:
        name = "the consortium's treasury" if line.account == COMMONS else names.get(line.account, "")
        amount = money.write_plain(line.payout, policy.minor_digits)
        whose = (cell(period.name), cell(line.account), cell(name))
        rows.writerow((*whose, policy.currency, line.payout, amount, settlement.sha256))
    return written.getvalue().encode()
