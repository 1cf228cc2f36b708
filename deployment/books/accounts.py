"""Who is paid on which account, from a YAML file that stays with whoever pays: debtor, and name and IBAN of payees.

What stands in it is in no message, log or ledger: what is wrong is told by payee and field. Knows no period and no
amount.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from stdnum import bic, iban
from stdnum.exceptions import ValidationError as NumberError

from deployment.books.sepa_letters import NAME_LENGTH, sepa_text
from deployment.errors import SettingsError
from rewards.files import strict_yaml

DEBTOR = "debtor"
"""Stands for a payee that is the debtor itself: its payout is not transferred."""


def _name(value: str) -> str:
    if not sepa_text(value, NAME_LENGTH):
        raise ValueError("it has no letter that SEPA can carry")
    return value


def _iban(value: str) -> str:
    try:
        # Its own digits and its country's form; lists of a country's banks grow old, and would refuse a payee's.
        return str(iban.validate(value, check_country=False))
    except NumberError:
        raise ValueError("it is no IBAN: country, length or check digits are wrong") from None


def _bic(value: str) -> str:
    try:
        return str(bic.validate(value))
    except NumberError:
        raise ValueError("it is no BIC, which has 8 or 11 letters and digits") from None


class Account(BaseModel):
    """An account: the name of who holds it, as its bank knows it, its IBAN, and its bank's BIC where one is wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_name)] = Field(repr=False)
    iban: Annotated[str, AfterValidator(_iban)] = Field(repr=False)
    bic: Annotated[str, AfterValidator(_bic)] | None = Field(default=None, repr=False)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    debtor: Account
    payees: dict[str, Account | Literal["debtor"]]


@dataclass(frozen=True)
class Accounts:
    """The accounts of a file.

    Attributes:
        source: the file, as errors name it.
        debtor: who pays.
        payees: by client, and of the commons; None of one that is the debtor itself.
    """

    source: str
    debtor: Account
    payees: Mapping[str, Account | None]


def load_accounts(path: Path) -> Accounts:
    """The accounts of a YAML file.

    Raises:
        SettingsError: it cannot be read, is not YAML, or an account is not valid; names the file, the payee and the
            field, and nothing else that stands in it.
    """
    try:
        document = strict_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{path} cannot be read: {why}") from None
    except ValueError as error:  # its own words may repeat the line
        mark = getattr(error.__cause__, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise SettingsError(f"{path} is not YAML{where}, or gives something twice there") from None
    try:
        file = _File.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        raise SettingsError(f"{path}: {_explain(problem['loc'], problem['type'], problem['msg'])}") from None
    payees = {client: account if isinstance(account, Account) else None for client, account in file.payees.items()}
    own = next((each for each, account in payees.items() if account and account.iban == file.debtor.iban), None)
    if own is not None:
        raise SettingsError(
            f"{path}: payee {_client_text(own)} has the debtor's own account: write `{DEBTOR}` in its place, "
            "and what it is paid is not transferred"
        )
    return Accounts(str(path), file.debtor, payees)


def _explain(place: Sequence[int | str], kind: str, message: str) -> str:
    """Where a file is wrong, and how: by names that it must have and by clients, as anything else may be an account."""
    fields = [part for part in place[2 if place[:1] == ("payees",) else 0 :] if part in _FIELDS]
    whose = f"payee {_client_text(place[1])}: " if place[:1] == ("payees",) and len(place) > 1 else ""
    field = f"{'.'.join(map(str, fields))}: " if fields else ""
    what = _WORDS.get(kind, message.removeprefix("Value error, "))
    return f"{whose}{field}{what}"


_FIELDS = ("debtor", "payees", "name", "iban", "bic")
_WORDS = {
    "extra_forbidden": "it has a field that is not known; debtor and payees have name, iban and, where wanted, bic",
    "missing": "it is missing",
    "model_type": f"it must be a name and an iban, or of a payee the word `{DEBTOR}`",
    "dict_type": "it must name clients, each with its account",
    "string_type": "it must be text",
}


def _client_text(client: Any) -> str:
    """A client as an error names it; who mistook the one for the other finds no account there."""
    return "whose name is an IBAN" if iban.is_valid(str(client)) else repr(client)
