"""What a final period pays as a transfer for a bank: to the cent, the same bytes, and nobody's account told."""

import xml.etree.ElementTree as ET
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sepaxml.validation import try_valid_xml

from deployment.books import sepa
from deployment.books.accounts import Account, Accounts, load_accounts
from deployment.books.sepa_letters import sepa_text
from deployment.errors import SettingsError
from rewards.errors import PeriodError
from rewards.periods import Period
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.document import Settlement
from rewards.settlement.policy import Policy
from rewards.settlement.settle import settle
from rewards.store.events import Event

IBANS = {
    "commons": "AT611904300234573201",
    "bank": "GB82WEST12345698765432",
    "clinic": "FR1420041010050500013M02606",
    "rider": "NL91ABNA0417164300",
}
DEBTOR = "DE89370400440532013000"
DAY = date(2026, 12, 5)
FINAL_US = 1_796_300_000_000_000  # 2026-12-03
NAMESPACE = f"{{urn:iso:std:iso:20022:tech:xsd:{sepa.SCHEMA}}}"
ACCOUNTS = Accounts(
    "payees.yaml",
    Account(name="Büro des Konsortiums", iban=DEBTOR),
    {client: Account(name=f"The {client} & Söhne", iban=iban) for client, iban in IBANS.items()},
)


def settlement(credit: dict[str, int], **policy: object) -> Settlement:
    """What a first period comes to."""
    found = PeriodCredit((0, 1), 1, credit)
    return settle("2026-11", 1, found, Policy.from_mapping({"currency": "EUR", **policy}, stored=True))


def final(paid: Settlement, salt: str = "a" * 64, name: str = "2026-11") -> Period:
    """A final period of that settlement, in the ledger of that salt."""
    move = Event(7, "period.final", name, FINAL_US, "me", {}, salt, None)
    nothing: dict[str, dict[str, int]] = {}
    return Period(
        name, 1, "final", (0, 1), FINAL_US, FINAL_US, (), (), (), nothing, nothing, (), paid, paid, (move,)
    )  # fmt: skip


def transfers(content: bytes) -> dict[str, int]:
    """IBAN -> cents."""
    root = ET.fromstring(content)
    paid = {}
    for each in root.iter(f"{NAMESPACE}CdtTrfTxInf"):
        amount = each.find(f".//{NAMESPACE}InstdAmt")
        iban = each.find(f"{NAMESPACE}CdtrAcct//{NAMESPACE}IBAN")
        assert amount is not None and iban is not None and amount.get("Ccy") == "EUR"
        paid[str(iban.text)] = int(Decimal(str(amount.text)) * 100)
    return paid


def fields(content: bytes, name: str) -> list[str | None]:
    """The texts of a field, in their order."""
    return [each.text for each in ET.fromstring(content).iter(f"{NAMESPACE}{name}")]


CREDIT = {"bank": 2_000_000, "clinic": 4_000_000, "rider": 0, "commons": 1_000_000}


def test_a_transfer_pays_what_the_period_pays():
    """Each to its own account, to the cent; who gets nothing is left out; a bank's own schema takes it."""
    paid = settlement(CREDIT, pool=1_000_003, fee_percent="2.5")
    made = sepa.transfer_file(final(paid), ACCOUNTS, DAY)
    due = {line.account: line.payout for line in paid.lines if line.payout}

    assert {"bank", "clinic", "commons"} == set(due)
    assert {IBANS[client]: cents for client, cents in due.items()} == transfers(made.content)
    assert due == made.cents and {} == made.staying
    assert {f"{Decimal(sum(due.values())) / 100:.2f}"} == set(fields(made.content, "CtrlSum"))
    assert ["3", "3"] == fields(made.content, "NbOfTxs")
    assert ["2026-12-05"] == fields(made.content, "Dt")
    assert ["Buro des Konsortiums"] == fields(made.content, "Nm")[:1]
    assert b"&" not in made.content and b"NOTPROVIDED" in made.content
    try_valid_xml(made.content, sepa.SCHEMA)


def test_the_same_transfer_is_the_same_file():
    """To the byte, as often as it is made; another ledger, period or client has other ids, all that a bank takes."""
    paid = settlement(CREDIT, pool=1_000_003)
    first, again = (sepa.transfer_file(final(paid), ACCOUNTS, DAY).content for _ in range(2))
    elsewhere = sepa.transfer_file(final(paid, salt="b" * 64), ACCOUNTS, DAY).content
    later = sepa.transfer_file(final(paid, name="2026-12"), ACCOUNTS, DAY).content
    other_day = sepa.transfer_file(final(paid), ACCOUNTS, date(2026, 12, 9)).content
    ids = [[*fields(each, "MsgId"), *fields(each, "EndToEndId")] for each in (first, elsewhere, later)]

    assert first == again != other_day
    assert fields(first, "MsgId") == fields(first, "PmtInfId") == fields(other_day, "MsgId")
    assert ["2026-12-03T12:13:20Z"] == fields(first, "CreDtTm")
    assert 12 == len({name for several in ids for name in several})
    assert all(name.isalnum() and len(name) == 35 for several in ids for name in several)


@settings(max_examples=25)
@given(
    credit=st.dictionaries(st.sampled_from(sorted(IBANS)), st.integers(0, 10**12), min_size=1),
    pool=st.integers(0, 10**9),
    fee=st.integers(0, 50),
    holdback=st.integers(0, 50),
    minimum=st.integers(0, 10**6),
)
def test_a_transfer_sums_to_the_payouts(credit, pool, fee, holdback, minimum):
    """Of any period: what is in the file is what is paid, in cents, and the sums in it are those of its transfers."""
    more = {"holdback_percent": holdback, "holdback_release_after": 2} if holdback else {}
    paid = settlement(credit, pool=pool, fee_percent=fee, minimum_payout=minimum, **more)
    whole = sum(line.payout for line in paid.lines)
    if not whole:
        with pytest.raises(PeriodError, match="pays nobody by transfer"):
            sepa.transfer_file(final(paid), ACCOUNTS, DAY)
        return
    made = sepa.transfer_file(final(paid), ACCOUNTS, DAY)

    assert whole == sum(transfers(made.content).values()) == sum(made.cents.values())
    assert {whole} == {int(Decimal(text) * 100) for text in fields(made.content, "CtrlSum")}


def test_whoever_is_the_debtor_is_paid_by_no_transfer():
    """What the treasury keeps stays where it is, and is told apart."""
    paid = settlement(CREDIT, pool=1_000_003)
    own = Accounts(ACCOUNTS.source, ACCOUNTS.debtor, {**ACCOUNTS.payees, "commons": None})
    made = sepa.transfer_file(final(paid), own, DAY)

    assert {"bank", "clinic"} == set(made.cents)
    assert sum(line.payout for line in paid.lines) == sum(made.cents.values()) + made.staying["commons"]


@pytest.mark.parametrize(
    ("policy", "accounts", "day", "message"),
    [
        ({"currency": "USD"}, ACCOUNTS, DAY, "settled in USD; SEPA transfers are in EUR alone"),
        ({"minor_digits": 3}, ACCOUNTS, DAY, "which is no whole number of cents"),
        ({"pool": 10**12}, ACCOUNTS, DAY, "which is more than one SEPA transfer may carry"),
        ({}, ACCOUNTS, date(2026, 12, 2), "was final on 2026-12-03, after 2026-12-02"),
        (
            {},
            Accounts("payees.yaml", ACCOUNTS.debtor, {"bank": None}),
            DAY,
            "payees has no 'clinic', 'commons'",
        ),
    ],
)
def test_what_no_transfer_can_pay_is_refused(policy, accounts, day, message):
    """Another currency, parts of a cent, too much, a day that is over, a member without an account: each by name."""
    paid = settlement(CREDIT, **{"pool": 1_000_003, **policy})

    with pytest.raises((PeriodError, SettingsError), match=message):
        sepa.transfer_file(final(paid), accounts, day)


def test_amounts_with_fewer_digits_are_whole_cents():
    """A policy of old whose EUR had no cents pays whole euros."""
    paid = settlement({"bank": 1}, pool=7, minor_digits=0)

    assert {IBANS["bank"]: 700} == transfers(sepa.transfer_file(final(paid), ACCOUNTS, DAY).content)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Lindenmoor Kliník & Söhne GmbH", "Lindenmoor Klinik Sohne GmbH"),
        ("Straße 5, Łódź", "Strasse 5, Lodz"),
        ("//a//b/", "a/b"),
        ("北京", "Bei Jing"),
        ('<b>\n"x"', "b x"),
        ("x" * 80, "x" * 70),
        ("☃", ""),
    ],
)
def test_names_are_spelt_in_the_letters_of_sepa(text, expected):
    """Transliterated where there is a way, else left out; no slash at an end or beside another."""
    assert expected == sepa_text(text, 70)


GOOD = f"""
debtor: {{name: Office, iban: {DEBTOR[:4]} {DEBTOR[4:]}, bic: COBADEFFXXX}}
payees:
  clinic: {{name: Lindenmoor Clinic, iban: {IBANS["clinic"]}}}
  commons: debtor
"""


def accounts_in(folder: Path, text: str) -> Path:
    """A file of accounts."""
    (folder / "payees.yaml").write_text(text, encoding="utf-8")
    return folder / "payees.yaml"


def test_accounts_are_read(tmp_path):
    """An IBAN may be written in groups; `debtor` stands for the debtor itself; what is printed of it tells none."""
    found = load_accounts(accounts_in(tmp_path, GOOD))

    assert (DEBTOR, "COBADEFFXXX") == (found.debtor.iban, found.debtor.bic)
    assert {"clinic": IBANS["clinic"], "commons": None} == {
        client: account and account.iban for client, account in found.payees.items()
    }
    assert "Lindenmoor" not in repr(found) and IBANS["clinic"] not in repr(found)


def test_a_payee_s_bank_need_not_be_on_a_list(tmp_path):
    """Lists of a country's banks grow old: what the number says of itself decides."""
    number = "BE68539007547034"  # the Belgian example of the registry of IBANs, whose bank is none

    assert number == load_accounts(accounts_in(tmp_path, GOOD.replace(IBANS["clinic"], number))).payees["clinic"].iban


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (IBANS["clinic"], "BE68539007547035", "payee 'clinic': iban: it is no IBAN"),
        (IBANS["clinic"], "FR1420041010050500013M02607", "payee 'clinic': iban: it is no IBAN"),
        (IBANS["clinic"], "DE00", "payee 'clinic': iban: it is no IBAN"),
        ("COBADEFFXXX", "COBA", "bic: it is no BIC"),
        ("Lindenmoor Clinic", "☃", "payee 'clinic': name: it has no letter that SEPA can carry"),
        (f", iban: {IBANS['clinic']}", "", "payee 'clinic': iban: it is missing"),
        (
            "commons: debtor",
            "commons: treasury",
            "payee 'commons': it must be a name and an iban, or",
        ),
        ("commons: debtor", "commons: {name: x, iban: 5}", "payee 'commons': iban: it must be text"),
        ("name: Lindenmoor", "holder: x, name: Lindenmoor", "payee 'clinic': it has a field that is not known"),
        ("debtor:", "deptor:", "debtor: it is missing"),
        (IBANS["clinic"], DEBTOR, "payee 'clinic' has the debtor's own account: write `debtor`"),
        ("clinic:", f"{IBANS['bank']}: x\n  clinic:", "payee whose name is an IBAN: it must be a name and an iban"),
        ("payees:", "payees: {\n", "is not YAML"),
        ("  commons", "  clinic", "is not YAML in line 5, or gives something twice there"),
        (GOOD, "- x", "must be"),
    ],
)
def test_a_wrong_account_is_named_and_not_told(tmp_path, old, new, message):
    """By the file, the payee and the field; neither a name nor a number that stands there is in the message."""
    path = accounts_in(tmp_path, GOOD.replace(old, new))
    with pytest.raises(SettingsError) as raised:
        load_accounts(path)
    told = str(raised.value)

    assert told.startswith(str(path)) and message in told
    for secret in (*IBANS.values(), DEBTOR, "Lindenmoor", "COBA", "M02607", "treasury", "holder"):
        assert secret not in told.replace(str(path), "")


def test_a_file_of_accounts_that_is_not_there_is_named(tmp_path):
    """In one line."""
    with pytest.raises(SettingsError, match=r"payees.yaml cannot be read: No such file"):
        load_accounts(tmp_path / "payees.yaml")
