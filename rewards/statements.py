"""Statements: what a client was told of a final period, signed, and provably in the ledger's Merkle log.

A statement is the body that stood in the events when its period became final, what else rebuilds that event's
leaf, the proof that the leaf is under a signed checkpoint, and a signature over all of that. Whoever has the public key
checks it offline. Knows no way to settle anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select
from sqlmodel import col

from rewards.credit import canonical_bytes
from rewards.errors import LogError, SignatureError, StatementError
from rewards.files import strict_json
from rewards.files.strict_json import JsonObject
from rewards.log import leaves, merkle, proofs
from rewards.money import write_readable
from rewards.periods.statement_bodies import MONEY_OUT, SCHEMA, SCHEMAS, STATEMENT_KIND, money_in
from rewards.signing.documents import sign_document, verify_document
from rewards.signing.encoding import base64_bytes
from rewards.signing.keys import SigningKey, VerifyKey
from rewards.signing.notes import Checkpoint, open_note, require_own
from rewards.store import events
from rewards.store.events import Event
from rewards.store.tables import EventRow

_EVENT = ("sequence", "kind", "subject", "at_us", "actor", "salt", "once")
_LOG = ("leaf_index", "size", "hashes", "checkpoint")
_ADDED = ("event", "log", "signature")
_HASH_BYTES = 32


@dataclass(frozen=True)
class StatementCheck:
    """What the check of a statement found.

    Attributes:
        period: of which period it is.
        client: whose it is.
        key: who signed it.
        checkpoint: the signed root of the log that it is under.
        checks: what was checked, each a sentence.
    """

    period: str
    client: str
    key: VerifyKey
    checkpoint: Checkpoint
    checks: tuple[str, ...]


def issue(connection: Connection, period: str, client: str, key: SigningKey) -> JsonObject:
    """A client's statement of a final period, signed.

    Args:
        connection: of `Database.read`; of a member is enough for its own.
        period: name of a final period.
        client: id of a client that was registered when the period became final.
        key: signs the statement.

    Raises:
        StatementError: there is no such statement, or it is not in the log yet: seal the log first.
    """
    issued = events.find(connection, kinds=[STATEMENT_KIND], subject=f"{period}/{client}", limit=1)
    if not issued:
        raise StatementError(
            f"there is no statement of period {period!r} for client {client!r}: statements are written when a period "
            "becomes final, one for every client that is registered then"
        )
    event = issued[0]
    try:
        place = proofs.inclusion(connection, "event", event.sequence)
    except LogError as error:
        raise StatementError(
            f"the statement of {client!r} cannot be issued before the log is sealed: {error}"
        ) from error
    row = {name: getattr(event, name) for name in _EVENT}
    return sign_document({**event.document, "event": row, "log": place}, key)


def clients(connection: Connection, period: str) -> tuple[str, ...]:
    """The clients that have a statement of a period, in the order of their registration; none before it is final."""
    query = select(col(EventRow.subject)).where(col(EventRow.kind) == STATEMENT_KIND, _is_of_period(period))
    subjects = connection.execute(query.order_by(col(EventRow.sequence))).scalars()
    return tuple(subject.removeprefix(f"{period}/") for subject in subjects)


def find_statements(
    connection: Connection, *, period: str | None = None, client: str | None = None, after: int = 0, limit: int
) -> list[Event]:
    """At most `limit` events that are statements, after an event's number, of one period or client where given."""
    query = select(EventRow).where(col(EventRow.kind) == STATEMENT_KIND, col(EventRow.sequence) > after)
    if period is not None and client is not None:
        query = query.where(col(EventRow.subject) == f"{period}/{client}")
    elif period is not None:
        query = query.where(_is_of_period(period))
    elif client is not None:
        query = query.where(_is_of_client(client))
    return events.read(connection, query.order_by(col(EventRow.sequence)).limit(limit))


def load(text: str | bytes) -> JsonObject:
    """A statement from JSON, in any layout; refuses what two readers could read differently.

    Raises:
        SignatureError: it is not JSON, no object, or an object in it gives a field twice.
    """
    try:
        document = strict_json.load(text)
    except ValueError as error:
        raise SignatureError(f"the statement is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SignatureError("the statement is not a JSON object")
    return document


def verify(document: JsonObject, keys: Sequence[VerifyKey], origin: str | None = None) -> StatementCheck:
    """Check a statement offline: every signature, its place in the log, and its arithmetic.

    Args:
        document: as `issue` gave it.
        keys: public keys of the ledger that the checker knows from elsewhere.
        origin: the log's name that the checker knows from elsewhere; not checked when None.

    Raises:
        SignatureError: something in it does not hold, or a key signed for another ledger than its own; the message
            names what.
    """
    key = verify_document(document, keys)
    _require_form(document)
    checkpoint, sealer = _checkpoint(document["log"], keys, origin)
    for signer in (key, sealer):
        require_own(signer, checkpoint.origin)
    _require_leaf(document, checkpoint)
    try:
        money = _check_money(document)
        part = _check_part(document)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise SignatureError(f"the statement's amounts are not spelt as statements spell them: {error!r}") from error
    place = f"leaf {document['log']['leaf_index']} of these {checkpoint.size} leaves"
    return StatementCheck(
        period=document["period"],
        client=document["client"],
        key=key,
        checkpoint=checkpoint,
        checks=(
            f"the statement is signed by {key}",
            f"the checkpoint of log {checkpoint.origin} at {checkpoint.size} leaves is signed by {sealer}",
            f"the statement is {place}, as it was written when its period became final",
            money,
            part,
        ),
    )


def _is_of_period(period: str) -> ColumnElement[bool]:
    # Not LIKE: to SQLite's, "Bank" is "bank", and a client would be told what is another's.
    prefix = f"{period}/"
    return func.substr(col(EventRow.subject), 1, len(prefix)) == prefix


def _is_of_client(client: str) -> ColumnElement[bool]:
    suffix = f"/{client}"
    subject = col(EventRow.subject)
    return func.substr(subject, func.length(subject) - len(suffix) + 1) == suffix


def _require_form(document: JsonObject) -> None:
    if document.get("schema") not in SCHEMAS:
        raise SignatureError(f"schema must be one of {', '.join(SCHEMAS)}, not {document.get('schema')!r}")
    for name, fields in (("event", _EVENT), ("log", _LOG)):
        if not isinstance(document.get(name), dict) or set(document[name]) != set(fields):
            raise SignatureError(f"{name} must be an object of exactly {', '.join(sorted(fields))}")


def _checkpoint(place: JsonObject, keys: Sequence[VerifyKey], origin: str | None) -> tuple[Checkpoint, VerifyKey]:
    if not isinstance(place["checkpoint"], str):
        raise SignatureError("log.checkpoint must be a signed note")
    try:
        named = place["checkpoint"].partition("\n")[0]
        text, sealer = open_note(place["checkpoint"], [key for key in keys if key.signs_for == named] or keys)
        checkpoint = Checkpoint.parse(text)
    except SignatureError as error:
        raise SignatureError(f"log.checkpoint: {error}") from error
    if origin is not None and checkpoint.origin != origin:
        raise SignatureError(f"log.checkpoint is of log {checkpoint.origin!r}, not of {origin!r}")
    if type(place["size"]) is not int or place["size"] != checkpoint.size:
        raise SignatureError(f"log.size is {place['size']!r}, but the checkpoint is of {checkpoint.size} leaves")
    return checkpoint, sealer


def _require_leaf(document: JsonObject, checkpoint: Checkpoint) -> None:
    """The leaf is rebuilt from what the statement says, so that a body that is not the one in the log is found out."""
    body = {name: value for name, value in document.items() if name not in _ADDED}
    event, place = document["event"], document["log"]
    subject = f"{document.get('period')}/{document.get('client')}"
    if (event["kind"], event["subject"], event["once"]) != (STATEMENT_KIND, subject, f"{STATEMENT_KIND}:{subject}"):
        raise SignatureError(f"event is not the statement of {subject}: {event['kind']} of {event['subject']}")
    if not isinstance(place["hashes"], list):
        raise SignatureError("log.hashes must be a list of hashes in base64")
    path = [base64_bytes(text, _HASH_BYTES, f"log.hashes[{index}]") for index, text in enumerate(place["hashes"])]
    leaf = leaves.event_leaf({**event, "document": canonical_bytes(body).decode()})
    if not merkle.verify_inclusion(leaf, place["leaf_index"], checkpoint.size, path, checkpoint.root):
        raise SignatureError(
            f"the statement is not leaf {place['leaf_index']!r} of the log: statement, event and checkpoint do not "
            "belong together"
        )


def _check_money(document: JsonObject) -> str:
    lines_in = money_in(document["schema"])
    if set(document["money"]) != {*lines_in, *MONEY_OUT}:
        raise SignatureError(f"money must have exactly {', '.join((*lines_in, *MONEY_OUT))}")
    money = {name: _integer(text) for name, text in document["money"].items()}
    came, left = sum(money[name] for name in lines_in), sum(money[name] for name in MONEY_OUT)
    if came != left:
        raise SignatureError(f"money does not add up: {came} minor units come in, {left} go out")
    if _integer(document["pool"]) - _integer(document["fee"]) != _integer(document["distributable"]):
        raise SignatureError("pool less fee is not what is distributable")
    digits, currency = document["minor_digits"], document["currency"]
    return f"the money adds up: {write_readable(came, currency, digits)} come in and go out"


def part_of(document: Mapping[str, Any]) -> Fraction:
    """Which part of what is distributable is the client's; statements before the fourth schema call it their share."""
    if document["schema"] != SCHEMA:
        return Fraction(document["share"])
    return Fraction(_integer(document["part"]["numerator"]), _integer(document["part"]["denominator"]))


def _check_part(document: JsonObject) -> str:
    part, distributable = part_of(document), _integer(document["distributable"])
    gross = _integer(document["money"]["gross"])
    if not 0 <= part <= 1 or abs(part * distributable - gross) >= 1:
        raise SignatureError(f"gross {gross} is not part {part} of {distributable} minor units")
    digits, currency = document["minor_digits"], document["currency"]
    paid, whole = (write_readable(amount, currency, digits) for amount in (gross, distributable))
    told = f"the gross of {paid} is the part of {whole}, rounded by less than one minor unit"
    return told if document["schema"] != SCHEMA else f"{told}; {_check_terms(document, part, gross)}"


def _check_terms(document: JsonObject, part: Fraction, gross: int) -> str:
    """What a statement that explains itself says of shares, cap and holdback is what its figures are."""
    share = {name: _integer(document["share"][name]) for name in ("numerator", "denominator")}
    credit = {"numerator": _integer(document["credit"]), "denominator": _integer(document["tokens"]) * 10**6}
    if share != credit:
        raise SignatureError(f"share {share} is not that of the credit, {credit}")
    cap, percent = document["cap_percent"], document["policy"]["holdback_percent"]
    if part * 100 > Fraction(cap):
        raise SignatureError(f"part {part} is above the cap of {cap} %")
    holdback = _integer(document["money"]["holdback"])
    if holdback != gross * Fraction(percent) // 100:
        raise SignatureError(f"holdback {holdback} is not {percent} % of the gross {gross}, rounded down")
    return f"it is within the cap of {cap} %, and the holdback is {percent} % of it, rounded down"


def _integer(text: Any) -> int:
    """An integer spelt in the one way that statements spell it."""
    if not isinstance(text, str) or str(int(text)) != text:
        raise ValueError(f"{text!r} is no integer as text")
    return int(text)
