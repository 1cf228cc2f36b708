"""What a final period pays as a SEPA credit transfer (ISO 20022, pain.001.001.09), to be given to the debtor's bank.

The same period, accounts and date make the same bytes. Its ids follow from the ledger, the period and the client, and
from nothing else, so that a bank which was given it before refuses it. Moves no money, and reads and writes no file.
"""

import re
from collections.abc import Mapping
from datetime import date
from hashlib import sha256

from sepaxml import SepaTransfer
from sepaxml.validation import try_valid_xml

from deployment.books.accounts import Account, Accounts
from deployment.books.payouts import TransferFile
from deployment.books.sepa_letters import NAME_LENGTH, NOTE_LENGTH, sepa_text
from deployment.errors import SettingsError
from rewards.credit import canonical_bytes
from rewards.errors import PeriodError
from rewards.moments import date_of
from rewards.money import write_plain, write_readable
from rewards.periods import Period
from rewards.store.events import Event

SCHEMA = "pain.001.001.09"
CURRENCY = "EUR"
_DIGITS = 2
_ID_LENGTH = 35
MOST_CENTS = 999_999_999_99
"""The most that one transfer may carry."""
_NO_BANK = b"<FinInstnId><Othr><Id>NOTPROVIDED</Id></Othr></FinInstnId>"
"""What the rulebooks want where no BIC is given; the library leaves it empty."""


def transfer_file(period: Period, accounts: Accounts, execute_on: date) -> TransferFile:
    """The payouts of a final period as one transfer; who gets nothing is not in it.

    Args:
        period: final or paid.
        accounts: of all who are paid.
        execute_on: the day on which the bank is to pay.

    Raises:
        PeriodError: it is settled in another currency, pays a part of a cent or more than SEPA carries, pays nobody by
            transfer, or was not final yet on that day.
        SettingsError: somebody who is paid has no account.
    """
    final = next(move for move in period.moves if move.kind == "period.final")
    if execute_on < date_of(final.at_us).date():
        raise PeriodError(f"period {period.name!r} was final on {date_of(final.at_us):%Y-%m-%d}, after {execute_on}")
    cents = _cents(period)
    lacking = [account for account in cents if account not in accounts.payees]
    if lacking:
        raise SettingsError(
            f"{accounts.source}: payees has no {', '.join(map(repr, lacking))}, paid in period {period.name!r}"
        )
    staying = {account: amount for account, amount in cents.items() if accounts.payees[account] is None}
    moved = {account: amount for account, amount in cents.items() if account not in staying}
    if not moved:
        raise PeriodError(f"period {period.name!r} pays nobody by transfer, so there is nothing for a bank to do")
    content = _document(period, final, accounts, moved, execute_on)
    return TransferFile(content, moved, staying)


def _cents(period: Period) -> dict[str, int]:
    """What each account is paid, in whole cents; those who get nothing are left out."""
    settlement = period.final
    assert settlement is not None, "what a draft pays is not certain"
    policy = settlement.policy
    if policy.currency != CURRENCY:
        raise PeriodError(f"period {period.name!r} is settled in {policy.currency}; SEPA transfers are in EUR alone")
    cents = {}
    for line in settlement.lines:
        whole, rest = divmod(line.payout * 10**_DIGITS, 10**policy.minor_digits)
        if rest or whole > MOST_CENTS:
            amount = write_readable(line.payout, CURRENCY, policy.minor_digits)
            why = "which is no whole number of cents" if rest else "which is more than one SEPA transfer may carry"
            raise PeriodError(f"period {period.name!r} pays {line.account!r} {amount}, {why}")
        if whole:
            cents[line.account] = whole
    return cents


def _document(period: Period, final: Event, accounts: Accounts, cents: Mapping[str, int], execute_on: date) -> bytes:
    transfer = SepaTransfer(
        {**_party(accounts.debtor), "currency": CURRENCY, "batch": True}, schema=SCHEMA, clean=False
    )
    for client, amount in cents.items():
        account = accounts.payees[client]
        assert account is not None
        transfer.add_payment(
            {
                **_party(account),
                "amount": amount,
                "execution_date": execute_on,
                "description": sepa_text(f"{period.name} {client}", NOTE_LENGTH),
                "endtoend_id": _id(final, client),
            }
        )
    made_at = f"{date_of(final.at_us):%Y-%m-%dT%H:%M:%SZ}"
    # What the library takes from the clock and from chance; text holds no angle bracket that is not escaped.
    content: bytes = transfer.export(validate=False)
    for name, value in (("MsgId", _id(final)), ("PmtInfId", _id(final)), ("CreDtTm", made_at)):
        content, count = re.subn(b"<%s>[^<]*<" % name.encode(), b"<%s>%s<" % (name.encode(), value.encode()), content)
        assert count == 1, f"a transfer has one {name}"
    content = content.replace(b"<FinInstnId />", _NO_BANK)
    total = write_plain(sum(cents.values()), _DIGITS).encode()
    assert content.count(b"<CtrlSum>%s</CtrlSum>" % total) == 2, "the sum is in the header, and of the one payment"
    try_valid_xml(content, SCHEMA)
    return content


def _party(account: Account) -> dict[str, str]:
    party = {"name": sepa_text(account.name, NAME_LENGTH), "IBAN": account.iban}
    return party if account.bic is None else {**party, "BIC": account.bic}


def _id(final: Event, client: str | None = None) -> str:
    """The id of a period's message, or of a client's transfer in it: the event's salt is of this ledger alone."""
    told = ["protoken sepa", final.salt, final.subject, client]
    return sha256(canonical_bytes(told)).hexdigest()[:_ID_LENGTH]
