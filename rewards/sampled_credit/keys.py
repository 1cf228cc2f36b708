"""The keys of sampling: made, committed to, in force, revealed. Knows no receipt and no period's contents.

A key is made when a consortium's fraction is set below 1, and a new one for each fraction that is set later and after
each close. An event `sampling.committed` says which fraction is in force for a consortium from then on, and the key's
SHA-256: it is in the log before the key chooses anything, and the key cannot be exchanged later. The close of a period
reveals every key that was made before it, in the period's document, and new ones take their place.

Until then the key is in the table `sampling_rules`, which no page, API or command shows, and which on PostgreSQL only
the ledger's owner and replicas can read: replicas on any number of machines choose by the same key without a file that
would have to be brought to each of them, and lost with it the choice could be checked no more. So who has the database,
or a copy of it, can tell which of the coming responses will be measured. That is the operator, who could look; members
and applications cannot predict it. A copy made for somebody else shows the open period's keys: let an auditor read by a
login that was granted protoken_auditor, or give the copy away after the next close.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlmodel import col

from rewards.errors import LedgerError
from rewards.files.strict_json import JsonObject
from rewards.sampled_credit.rule import KEY_BYTES, WHOLE, SamplingRule, fraction_text, millionths_of
from rewards.store import events
from rewards.store.database import Database
from rewards.store.tables import EventRow, SamplingRuleRow

COMMITTED = "sampling.committed"
"""The kind of event that says by which fraction and key a consortium is sampled from now on."""
REFRESH_S = 10.0
"""How old what `SamplingKeys` knows may be before it is read again."""
MOST_STALE_S = 1800.0
"""How old it may be at most: longer, and keys that were revealed meanwhile might be in use. Audits allow an hour."""
_LOG = logging.getLogger(__name__)
_EVERYTHING = SamplingRule()


@dataclass(frozen=True)
class RevealedKey:
    """A key that chooses nothing any more; `sequence` is that of the event which committed to it."""

    sequence: int
    consortium: str
    key: bytes

    @property
    def document(self) -> JsonObject:
        """As the document of a period reveals it."""
        hashed = sha256(self.key).hexdigest()
        return {"event": self.sequence, "consortium": self.consortium, "key_sha256": hashed, "key": self.key.hex()}


def put_in_force(database: Database, consortium: str, fraction: Decimal | int | str, actor: str) -> bool:
    """Let a fraction of a consortium's responses be measured from now on; again changes nothing.

    Returns:
        Whether it was another one before.

    Raises:
        CreditError: the fraction is not above 0 and up to 1, or has more than 6 digits.
        LedgerError: the ledger cannot be written.
    """
    millionths = millionths_of(fraction)
    with database.write() as connection:
        rules = [rule for rule in _rules(connection) if rule["consortium"] == consortium]
        if (rules[-1]["millionths"] if rules else WHOLE) == millionths:
            return False
        _commit(connection, consortium, millionths, actor)
    return True


def reveal(connection: Connection, after: int) -> tuple[RevealedKey, ...]:
    """Every key that was made after an event's number, which is where keys were revealed last; changes nothing.

    Raises:
        LedgerError: a key is not the one that was committed to; somebody wrote past the ledger.
    """
    revealed = []
    for rule in _rules(connection):
        sequence, decides = rule["sequence"], _rule_of(rule)
        if sequence > after and decides.key is not None:
            committed = events.find(connection, kinds=[COMMITTED], after=sequence - 1, limit=1)
            hashes = {each.sequence: each.document["key_sha256"] for each in committed}
            if hashes.get(sequence) != decides.key_sha256:
                raise LedgerError(
                    f"the sampling key of event {sequence} is not the one that was committed to; somebody wrote past "
                    "the ledger"
                )
            revealed.append(RevealedKey(sequence, rule["consortium"], decides.key))
    return tuple(revealed)


def renew(connection: Connection, actor: str) -> None:
    """Make and commit to a new key for each consortium that is sampled, in the transaction that revealed the last."""
    latest = {rule["consortium"]: rule["millionths"] for rule in _rules(connection)}
    for consortium, millionths in latest.items():
        if millionths != WHOLE:
            _commit(connection, consortium, millionths, actor)


class SamplingKeys:
    """The rules in force, for whoever makes receipts; usable from several threads.

    What was read last is kept, and read again beside, so that nobody waits for the ledger but the very first.

    Args:
        database: of the ledger; on PostgreSQL a replica's login will do.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._latest: tuple[Sequence[Any], float] | None = None  # the rules, and when they were read
        self._reading = threading.Lock()

    def rule(self, consortium: str, created_at_us: int) -> SamplingRule:
        """What decides for a response that was asked for at a moment, in microseconds since 1970.

        Raises:
            LedgerError: the ledger cannot be read the first time, or was not for so long that the keys may be old.
        """
        read, read_at = self._latest or self._refresh()
        age_s = time.monotonic() - read_at
        if age_s > REFRESH_S and not self._reading.locked():
            threading.Thread(target=self._try_refresh, name="protoken-sampling-keys", daemon=True).start()
        rules = [rule for rule in read if rule["consortium"] == consortium]
        if rules and age_s > MOST_STALE_S:
            raise LedgerError(
                f"the sampling keys of {consortium!r} were read {age_s:.0f} s ago, and the ledger is away since: which "
                "responses are measured must not be chosen by keys that may be revealed by now"
            )
        return next((_rule_of(rule) for rule in reversed(rules) if rule["at_us"] <= created_at_us), _EVERYTHING)

    def _refresh(self) -> tuple[Sequence[Any], float]:
        """Read the rules now; the rows, and the moment before they were read.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading:
            at = time.monotonic()
            with self._database.read() as connection:
                rules = _rules(connection)
            self._latest = rules, at  # together: of rules without their moment it would be said that they are old
        return rules, at

    def _try_refresh(self) -> None:
        try:
            self._refresh()
        except LedgerError as error:
            _LOG.warning("the sampling keys cannot be read, and those of before are used: %s", error)


def _rules(connection: Connection) -> Sequence[Any]:
    return connection.execute(select(SamplingRuleRow).order_by(col(SamplingRuleRow.sequence))).mappings().all()


def _rule_of(row: Any) -> SamplingRule:
    return SamplingRule(row["millionths"], None if row["secret"] is None else bytes.fromhex(row["secret"]))


def _commit(connection: Connection, consortium: str, millionths: int, actor: str) -> None:
    rule = SamplingRule(millionths, None if millionths == WHOLE else secrets.token_bytes(KEY_BYTES))
    document = {"fraction": fraction_text(millionths), "key_sha256": rule.key_sha256}
    sequence = events.record(connection, COMMITTED, consortium, actor, document)
    at_us = connection.execute(select(col(EventRow.at_us)).where(col(EventRow.sequence) == sequence)).scalar_one()
    row = {
        "sequence": sequence,
        "consortium": consortium,
        "millionths": millionths,
        "secret": None if rule.key is None else rule.key.hex(),
        "at_us": at_us,
    }
    connection.execute(insert(SamplingRuleRow).values(row))
