"""Sealing: new receipts and events become leaves of the Merkle log, and a signed checkpoint closes over them.

The only writer of leaves and nodes. Knows no proof; what a leaf says is the business of `rewards.log.leaves`, and what
a checkpoint says of `rewards.log.checkpoints`.
"""

from __future__ import annotations

import logging
import threading

from sqlalchemy import Connection, func, insert, select
from sqlmodel import col

from rewards.errors import LedgerError, LogError, SignatureError
from rewards.ledger.ledger import Ledger
from rewards.log import leaves, merkle
from rewards.log.checkpoints import add_checkpoint, latest_checkpoint
from rewards.signing.keys import SigningKey, VerifyKey
from rewards.signing.notes import Checkpoint
from rewards.store import events, queries
from rewards.store.continuity import Continuity
from rewards.store.tables import EntryRow, EventRow, LeafRow, NodeRow, ReceiptRow

PAGE_LEAVES = 1000
"""Leaves of one transaction: whoever books waits for it a fraction of a second at most, and memory stays flat."""
SIGNING_KEY_ADDED = "signing_key.added"
_LOG = logging.getLogger(__name__)


class StoredNodes:
    """The nodes of the log in the database, for `rewards.log.merkle`; read one by one, as builders need few."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def node(self, level: int, index: int) -> bytes:
        """As `rewards.log.merkle.Nodes.node`.

        Raises:
            LogError: the log does not reach so far.
        """
        place = col(NodeRow.level) == level, col(NodeRow.node_index) == index
        stored = self._connection.execute(select(col(NodeRow.hash)).where(*place)).scalar_one_or_none()
        if stored is None:
            raise LogError(f"the log has no complete node {index} at level {level}")
        return bytes.fromhex(stored)


def seal(ledger: Ledger, key: SigningKey, origin: str, continuity: Continuity | None = None) -> Checkpoint | None:
    """Put every receipt and event that is not in the log yet into it, and sign what the log is then.

    Of two that seal at once each leaf is sealed by one. A key that is not registered is registered first.

    Args:
        ledger: the books.
        key: signs the checkpoints.
        origin: the log's name, for ever, as in "consortium.example/ledger".
        continuity: what was seen of the ledger before: one that was set back is not signed, as members hold what
            followed.

    Returns:
        The last checkpoint made; None when there was nothing new.

    Raises:
        LogError: the log was sealed under another origin before.
        SignatureError: an origin that is empty or holds a line break.
        LedgerError: the database fails; what earlier transactions sealed stays.
    """
    sealed = None
    is_full = True
    while is_full:
        with ledger.database.write() as connection:
            if continuity is not None:
                continuity.require(connection)
            _register(connection, key.public)
            page = _new_leaves(connection)
            if page:
                sealed = _seal_page(connection, page, key, origin)
        is_full = len(page) == PAGE_LEAVES
    return sealed


def register_signing_key(ledger: Ledger, verify_key: VerifyKey) -> None:
    """Let the books say that this key signs for them; once, again changes nothing."""
    with ledger.database.write() as connection:
        _register(connection, verify_key)


def require_known(connection: Connection, key: VerifyKey) -> None:
    """Refuse a key that is none of the ledger's.

    Raises:
        SignatureError: other keys sign for the ledger, which are named, or none does yet.
    """
    known = verify_keys(connection)
    if key in known:
        return
    if known:
        raise SignatureError(
            f"signing key {key} is none of this ledger's, which is signed by {', '.join(map(str, known))}: bring the "
            "right file back; `protoken keys create --signing --rotate` makes a new key, which the books record"
        )
    raise SignatureError(
        f"signing key {key} is none of this ledger's, which no key has signed yet: where the key's own ledger is lost, "
        "bring that back, as by `protoken ledger restore`; where these are to be new books, `protoken keys create "
        "--signing --rotate` makes them a key of their own"
    )


def introduce(ledger: Ledger, key: VerifyKey) -> None:
    """Register the first key of a ledger; of those that race for it, one is the first.

    Raises:
        SignatureError: other keys sign for the ledger.
    """
    with ledger.database.write() as connection:
        if verify_keys(connection):
            require_known(connection, key)
        _register(connection, key)


def verify_keys(connection: Connection) -> list[VerifyKey]:
    """The keys that were ever registered, in that order."""
    return [VerifyKey.decode(event.document["public"]) for event in events.find(connection, kinds=[SIGNING_KEY_ADDED])]


def log_origin(ledger: Ledger, key: SigningKey) -> str:
    """The name under which the ledger's log is sealed: for ever the one of the first seal, which is the key's."""
    with ledger.database.read() as connection:
        last = latest_checkpoint(connection)
    return key.name if last is None else last.origin


def count_unsealed(connection: Connection) -> tuple[int, int]:
    """How many receipts, and how many events, are not in the log yet."""
    receipts = queries.last_sequence(connection, None) - _last_sealed(connection, "receipt")
    return receipts, events.last_event(connection) - _last_sealed(connection, "event")


class Sealer:
    """Seals every `interval_s` seconds in a thread of its own, and once more on `close`.

    A failure, such as a database that is away, is logged; what was not sealed then is sealed the next time. Of a ledger
    that is lost, or was set back meanwhile, nothing is signed.
    """

    def __init__(self, ledger: Ledger, key: SigningKey, origin: str, interval_s: float) -> None:
        self._ledger = ledger
        self._key = key
        self._origin = origin
        self._interval_s = interval_s
        self._continuity = Continuity(ledger.database)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="protoken-sealer", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether what is new is still sealed."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Seal what is there, and end the thread."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(self._interval_s):
            self._seal()
        self._seal()

    def _seal(self) -> None:
        try:
            seal(self._ledger, self._key, self._origin, self._continuity)
        except LedgerError as error:
            _LOG.error("sealing the log %s failed; it is tried again: %s", self._origin, error)
        except Exception:  # noqa: BLE001 - whatever it was, the next time seals the rest; without a thread nothing does
            _LOG.exception("sealing the log %s failed; it is tried again", self._origin)


def _register(connection: Connection, key: VerifyKey) -> None:
    if not events.find(connection, kinds=[SIGNING_KEY_ADDED], subject=key.key_id, limit=1):
        once = f"{SIGNING_KEY_ADDED}:{key.key_id}"
        events.record(connection, SIGNING_KEY_ADDED, key.key_id, "service", {"public": key.encode()}, once=once)


def _new_leaves(connection: Connection) -> list[tuple[str, int, bytes]]:
    """Source, sequence and leaf hash of what is to be sealed next: receipts, then events; at most a page."""
    page = _receipt_leaves(connection, _last_sealed(connection, "receipt"), PAGE_LEAVES)
    return page + _event_leaves(connection, _last_sealed(connection, "event"), PAGE_LEAVES - len(page))


def _last_sealed(connection: Connection, source: str) -> int:
    last = select(func.max(col(LeafRow.sequence))).where(col(LeafRow.source) == source)
    return connection.execute(last).scalar_one() or 0


def _receipt_leaves(connection: Connection, after: int, limit: int) -> list[tuple[str, int, bytes]]:
    columns = [col(getattr(ReceiptRow, name)) for name in (*leaves.HEAD, "payload_sha256", "salt")]
    sequence = col(ReceiptRow.sequence)
    rows = connection.execute(select(*columns).where(sequence > after).order_by(sequence).limit(limit)).mappings().all()
    amounts: dict[int, dict[str, int]] = {row["sequence"]: {} for row in rows}
    of = col(EntryRow.receipt_sequence)
    entries = select(of, col(EntryRow.account), col(EntryRow.amount)).where(of > after, of <= max(amounts, default=0))
    for receipt, account, amount in connection.execute(entries):
        amounts[receipt][account] = amount
    return [("receipt", row["sequence"], leaves.receipt_leaf({**row}, amounts[row["sequence"]])) for row in rows]


def _event_leaves(connection: Connection, after: int, limit: int) -> list[tuple[str, int, bytes]]:
    sequence = col(EventRow.sequence)
    rows = connection.execute(select(EventRow).where(sequence > after).order_by(sequence).limit(limit)).mappings()
    return [("event", row["sequence"], leaves.event_leaf({**row})) for row in rows]


def _seal_page(connection: Connection, page: list[tuple[str, int, bytes]], key: SigningKey, origin: str) -> Checkpoint:
    """Write leaves, nodes and checkpoint of a page into the open transaction."""
    last = latest_checkpoint(connection)
    size = 0 if last is None else last.size
    if last is not None and last.origin != origin:
        raise LogError(f"this log is sealed as {last.origin!r}; it cannot become {origin!r}")
    _grow(connection, size, page)
    root = merkle.root(StoredNodes(connection), size + len(page))
    return add_checkpoint(connection, origin, size + len(page), root, after=last, key=key)


def _grow(connection: Connection, size: int, page: list[tuple[str, int, bytes]]) -> None:
    """Write the leaves that follow a log of `size`, and the nodes that they complete."""
    numbered = enumerate(page, start=size)
    rows = [{"leaf_index": index, "source": source, "sequence": number} for index, (source, number, _) in numbered]
    connection.execute(insert(LeafRow), rows)
    grown = merkle.grow(StoredNodes(connection), size, [value for _, _, value in page])
    connection.execute(
        insert(NodeRow), [{"level": level, "node_index": index, "hash": value.hex()} for level, index, value in grown]
    )
