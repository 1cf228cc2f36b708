"""The audit: every row read once in order, everything computed anew, and the first row that differs named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select
from sqlmodel import col

from rewards.audit import checkpoints, idempotency_claims
from rewards.audit.events import COMMONS, Events, check_bearer_keys, registered_accounts, signing_keys
from rewards.audit.receipts import Receipts
from rewards.audit.report import AuditProgress, Difference, DifferenceError, Report
from rewards.audit.sampled_credit import PENDING, check_rules
from rewards.audit.settlement.replay import check_settlements
from rewards.audit.source import Source, open_source
from rewards.audit.tree import Tree
from rewards.audit.write_ahead import lacks_write_ahead_log
from rewards.signing.keys import VerifyKey
from rewards.signing.notes import Checkpoint, open_note
from rewards.store.tables import ApiKeyRow, CheckpointRow, ClaimRow, EntryRow, EventRow, LeafRow, NodeRow, ReceiptRow

TABLES = (ReceiptRow, EntryRow, EventRow, LeafRow, NodeRow, CheckpointRow, ApiKeyRow, ClaimRow)
_ROWS_OF_PROGRESS = 1000


def audit(
    ledger: str | Path,
    *,
    keys: Sequence[VerifyKey] = (),
    held: str | None = None,
    progress: AuditProgress | None = None,
) -> Report:
    """Rebuild the books from their rows alone and compare; memory does not grow with the ledger.

    Args:
        ledger: URL of a ledger, or the path of a SQLite file that nobody writes any more; it may be read-only.
        keys: public keys that the auditor knows from elsewhere; without any, those that the books name are believed.
        held: a checkpoint (signed note) from earlier, which the log must extend.
        progress: is told how far the audit is, in thousands of receipts and events.

    Raises:
        LedgerError: the ledger cannot be read.
        SignatureError: the checkpoint that is held is none, or none of the keys signed it.
    """
    with open_source(ledger) as source:
        counts = {str(table.__tablename__): source.count(table) for table in TABLES}
        replay = _Replay(source, keys, held, progress)
        difference = None
        try:
            replay.check(counts["receipts"] + counts["events"])
        except DifferenceError as error:
            difference = error.difference
        report = replay.report(difference, counts)
    return replace(report, lacks_write_ahead_log=isinstance(ledger, Path) and lacks_write_ahead_log(ledger))


class _Replay:
    """One audit under way, and what it has added up so far."""

    def __init__(
        self, source: Source, keys: Sequence[VerifyKey], held: str | None, progress: AuditProgress | None
    ) -> None:
        self._source = source
        self._known = list(keys)
        self._events = Events(source)
        self._receipts = Receipts(source, lambda consortium: registered_accounts(source, consortium))
        self._tree = Tree(source)
        self._note = held
        self._held: Checkpoint | None = None
        self._progress = progress
        self._origin: str | None = None
        self._replayed = 0

    def check(self, total: int) -> None:
        """Run every check in turn.

        Args:
            total: number of receipts and events.

        Raises:
            DifferenceError: a row differs.
        """
        if self._note is not None:
            self._held = self._open_held(self._note)
        if self._progress is not None:
            self._progress.start("thousands of receipts and events", -(-total // _ROWS_OF_PROGRESS))
        sources = {"receipt": self._count_rows(self._receipts), "event": self._count_rows(self._events)}
        sealed = self._check_log(sources)
        for source in sources.values():
            for _ in source:
                pass
        if self._progress is not None and self._replayed % _ROWS_OF_PROGRESS:
            self._progress.advance()
        self._receipts.check_nothing_more()
        self._origin = checkpoints.check_signatures(self._source, self._keys())
        self._check_end(sealed)
        self._check_accounts()
        check_bearer_keys(self._source)
        idempotency_claims.check(self._source)
        check_rules(self._source)
        check_settlements(self._source)

    def report(self, difference: Difference | None, counts: dict[str, int]) -> Report:
        """What there is to say at the end."""
        return Report(
            difference=difference,
            counts=counts,
            unsealed=counts["receipts"] + counts["events"] - counts["leaves"],
            balances=dict(sorted(self._receipts.balances.items())),
            tokens=self._receipts.tokens,
            origin=self._origin,
            size=self._tree.size,
            root=self._tree.root(),
            keys=tuple(key.encode() for key in self._keys()),
            extends=None if self._held is None or difference is not None else self._held.size,
        )

    def _check_log(self, sources: dict[str, Iterator[tuple[int, bytes]]]) -> int:
        """Grow the tree by each leaf's row, and compare it at every checkpoint; the size of the last one reached."""
        sealed, last = 0, dict.fromkeys(sources, 0)
        stored = checkpoints.read_checkpoints(self._source)
        checkpoint = next(stored, None)
        for index, leaf in enumerate(self._source.rows(select(LeafRow).order_by(col(LeafRow.leaf_index)))):
            source, sequence = leaf["source"], leaf["sequence"]
            if leaf["leaf_index"] != index:
                raise DifferenceError("leaves", index, "leaf_index", actual=None, expected=index)
            if source not in sources:
                raise DifferenceError("leaves", index, "source", actual=source, expected="receipt or event")
            if sequence != last[source] + 1:
                raise DifferenceError("leaves", index, "sequence", actual=sequence, expected=last[source] + 1)
            row = next(sources[source], None)
            if row is None:
                raise DifferenceError(f"{source}s", sequence, "sequence", actual=None, expected=sequence)
            last[source], value = row
            self._tree.add(value, source, sequence)
            if checkpoint is not None and checkpoint["size"] == self._tree.size:
                self._tree.look_ahead(sources)
                checkpoints.check_root(checkpoint, self._tree)
                sealed, checkpoint = self._tree.size, next(stored, None)
            self._check_held()
        return sealed

    def _check_held(self) -> None:
        held, tree = self._held, self._tree
        if held is not None and held.size == tree.size and held.root.hex() != tree.root():
            raise DifferenceError(
                "the checkpoint held", held.size, "root", actual=held.root.hex(), expected=tree.root()
            )

    def _check_end(self, sealed: int) -> None:
        """Nothing is missing behind the last leaf, and nothing is there that no checkpoint covers."""
        tree, held = self._tree, self._held
        latest = max((row["size"] for row in checkpoints.read_checkpoints(self._source)), default=0)
        if latest > tree.size:
            raise DifferenceError("leaves", tree.size, "leaf_index", actual=None, expected=tree.size)
        if sealed < tree.size and tree.differs is None:
            raise DifferenceError("checkpoints", tree.size, "size", actual=None, expected=tree.size)
        if sealed < tree.size:
            raise DifferenceError("leaves", sealed, "leaf_index", actual=sealed, expected=None)
        tree.check_nothing_more()
        if held is not None and held.size > tree.size:
            raise DifferenceError(
                "the checkpoint held", held.size, "size", actual=held.size, expected=f"at most {tree.size}"
            )
        if held is not None and held.origin != self._origin:
            raise DifferenceError("the checkpoint held", held.size, "origin", actual=held.origin, expected=self._origin)

    def _check_accounts(self) -> None:
        for (consortium, account), sequence in self._receipts.accounts.items():
            if account != PENDING and account not in self._events.accounts.get(consortium, {COMMONS}):
                expected = f"a client registered in {consortium!r}"
                raise DifferenceError("entries", (sequence, account), "account", actual=account, expected=expected)

    def _keys(self) -> list[VerifyKey]:
        return self._known or self._events.signing_keys

    def _open_held(self, note: str) -> Checkpoint:
        """The checkpoint that is held; where no keys are known, the books' own are taken before they are checked."""
        text, _ = open_note(note, self._known or signing_keys(self._source))
        return Checkpoint.parse(text)

    def _count_rows(self, source: Receipts | Events) -> Iterator[tuple[int, bytes]]:
        for row in source:
            yield row
            self._replayed += 1
            if self._progress is not None and self._replayed % _ROWS_OF_PROGRESS == 0:
                self._progress.advance()
