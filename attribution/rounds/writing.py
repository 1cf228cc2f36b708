"""A folder of recorded rounds, to which each round is added whole or not at all.

A crash leaves no half round: a round is written under a hidden name, and renamed when all of it is on the disk. Of two
runs that record into one folder, one is refused. Does not know who trained, nor where the updates came from.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attribution.errors import RoundsError
from attribution.files.destinations import prepare_folder, write_file
from attribution.files.durable import sync
from attribution.files.untrusted import first_problem
from attribution.rounds.documents import (
    FEDERATION_NAME,
    GLOBAL_NAME,
    ROUND_NAME,
    Beginning,
    Federation,
    Missing,
    RecordedUpdate,
    Round,
    document_text,
    read_document,
    round_name,
    update_name,
)
from attribution.rounds.hashing import tensors_sha256
from attribution.rounds.reading import read_federation, round_numbers
from attribution.rounds.stored_tensors import store_tensors

_LOCK_NAME = ".lock"
_DRAFT = re.compile(r"\.round-[0-9]{4,9}")


@dataclass(frozen=True)
class SentUpdate:
    """What a client sent: its tensors by name, of NumPy or PyTorch, with its weight and what it signed."""

    client: str
    weight: float
    tensors: Mapping[str, Any]
    statement: str | None = None


class RoundDraft:
    """A round while it is written.

    Attributes:
        recorded: its document, once it is complete.
    """

    def __init__(self, folder: Path, number: int, before_sha256: str) -> None:
        self.recorded: Round | None = None
        self._folder, self._number, self._before_sha256 = folder, number, before_sha256
        self._updates: list[RecordedUpdate] = []

    def keep(self, update: SentUpdate, admit: Callable[[int, str, RecordedUpdate], None] | None = None) -> None:
        """Write what a client sent, unless `admit` refuses it: it is asked with the round and what that began from.

        Raises:
            RoundsError: a tensor cannot be kept, the client is there twice, the weight is none, or it is not admitted.
        """
        if any(update.client == other.client for other in self._updates):
            raise RoundsError(f"round {self._number}: client {update.client!r} is in the round twice")
        path = self._folder / update_name(update.client)
        stored = store_tensors(path, update.tensors)
        with self._told_in_one_line():
            recorded = RecordedUpdate(
                client=update.client, weight=update.weight, sha256=stored.sha256, statement=update.statement
            )
        if admit is not None:
            try:
                admit(self._number, self._before_sha256, recorded)
            except RoundsError:
                path.unlink()
                raise
        self._updates.append(recorded)

    def complete(self, missing: Sequence[Missing], after: Mapping[str, Any]) -> Round:
        """Write who was left out and the global model that came of the round, and with them its document.

        Raises:
            RoundsError: a tensor cannot be kept, or they do not go together.
        """
        stored = store_tensors(self._folder / GLOBAL_NAME, after)
        with self._told_in_one_line():
            recorded = Round(
                round=self._number,
                before_sha256=self._before_sha256,
                after_sha256=stored.sha256,
                updates=tuple(self._updates),
                missing=tuple(missing),
            )
        _write(self._folder / ROUND_NAME, recorded)
        self.recorded = recorded
        return recorded

    @contextmanager
    def _told_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            raise RoundsError(f"round {self._number}: {first_problem(error)}") from error


class RoundsWriter:
    """Adds rounds to a folder, a new one or one that an earlier run left.

    Attributes:
        folder: where rounds go.
        last: the number of the last round that is there; None before anything is.
    """

    def __init__(self, folder: Path, federation: Federation) -> None:
        """Open a folder, which is made where there is none.

        Raises:
            DestinationError: nothing can be written there.
            RoundsError: somebody else writes there at the moment, or what is there is of another federation.
        """
        prepare_folder(folder)
        self.folder = folder
        with _lock_of(folder):
            _write_front_page(folder, federation)
            _remove_drafts(folder)
            self.last = _last_number(folder)
            self._sha256 = _last_sha256(folder, self.last)

    @property
    def next(self) -> int:
        """The number of the round that would be added."""
        return 1 if self.last is None else self.last + 1

    def begin(self, tensors: Mapping[str, Any]) -> str:
        """Say with which global model a round begins; the first is kept, any other has to be how the last round ended.

        Returns:
            Its hash.

        Raises:
            RoundsError: it is another model.
        """
        if self.last is None:
            with self._whole_folder(0) as folder:
                stored = store_tensors(folder / GLOBAL_NAME, tensors)
                _write(folder / ROUND_NAME, Beginning(global_sha256=stored.sha256))
            self.last, self._sha256 = 0, stored.sha256
        elif tensors_sha256(tensors) != self._sha256:
            raise RoundsError(
                f"{self.folder}: wrong base: round {self.last + 1} would begin with another model than"
                f" {round_name(self.last)}/{GLOBAL_NAME}; go on from that, or name another folder"
            )
        assert self._sha256 is not None
        return self._sha256

    def add(self, updates: Sequence[SentUpdate], missing: Sequence[Missing], after: Mapping[str, Any]) -> Round:
        """Add the round that has begun: what clients sent, who was left out, and the global model that came of it.

        Raises:
            RoundsError: a tensor cannot be kept, a client is there twice, or a weight is none.
        """
        with self.draft() as draft:
            for update in updates:
                draft.keep(update)
            return draft.complete(missing, after)

    @contextmanager
    def draft(self) -> Iterator["RoundDraft"]:
        """The round that has begun, for who aggregates between keeping updates and completing it.

        Where it is not completed, be it through an error or on purpose, nothing of it is left.
        """
        assert self.last is not None and self._sha256 is not None, "a round begins before it is added"
        with self._whole_folder(self.last + 1) as folder:
            draft = RoundDraft(folder, self.last + 1, self._sha256)
            yield draft
        if draft.recorded is not None:
            self.last, self._sha256 = draft.recorded.round, draft.recorded.after_sha256

    @contextmanager
    def _whole_folder(self, number: int) -> Iterator[Path]:
        """A folder to write a round in, which gets its name when all is on the disk, or is gone."""
        draft, place = self.folder / f".{round_name(number)}", self.folder / round_name(number)
        with _lock_of(self.folder):
            if _last_number(self.folder) != self.last:
                raise RoundsError(f"{place}: is there already, and not of this run; name another folder")
            _remove_drafts(self.folder)  # of a run that came meanwhile, and was killed
            draft.mkdir()
            try:
                yield draft
                if (draft / ROUND_NAME).exists():
                    sync(draft)
                    draft.rename(place)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            sync(self.folder)


@contextmanager
def _lock_of(folder: Path) -> Iterator[None]:
    """The right to write in a folder, which ends at the latest with the process."""
    descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RoundsError(f"{folder}: somebody else records a round there; name another folder") from None
    else:
        yield
    finally:
        os.close(descriptor)


def _last_number(folder: Path) -> int | None:
    return max(round_numbers(folder), default=None)


def _write_front_page(folder: Path, federation: Federation) -> None:
    """Write who trains together; members may join those of an earlier run, and none of these may be gone."""
    page = folder / FEDERATION_NAME
    if page.exists() or round_numbers(folder):
        before = read_federation(folder)
        for field in ("consortium", "adapter"):
            if getattr(before, field) != getattr(federation, field):
                raise RoundsError(f"{page}: {field}: is another than that of this run; name another folder")
        clients = {member.client for member in federation.members}
        if gone := [member.client for member in before.members if member.client not in clients]:
            raise RoundsError(f"{page}: members: {gone[0]!r} is no member of this run; name another folder")
        _require_same_keys(folder, before, federation)
    write_file(page, document_text(federation).encode())
    sync(page)


def _require_same_keys(folder: Path, before: Federation, federation: Federation) -> None:
    """Refuse another key of who has sent already: what it signed, or did not, would hold for no import any more."""
    keys = {member.client: member.public_part for member in federation.members}
    changed = {member.client for member in before.members if member.public_part != keys[member.client]}
    for number in round_numbers(folder)[1:] if changed else ():
        path = folder / round_name(number) / ROUND_NAME
        if sent := sorted(changed & {update.client for update in read_document(path, Round).updates}):
            raise RoundsError(
                f"{folder / FEDERATION_NAME}: members: {sent[0]!r}: signing_key: is another than that of this run, and"
                f" round {number} was sent under it; give that key, or name another folder"
            )


def _remove_drafts(folder: Path) -> None:
    """Remove what a process left that was killed as it wrote a round; what else is there is somebody's."""
    for draft in folder.iterdir():
        if _DRAFT.fullmatch(draft.name) and draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft)


def _last_sha256(folder: Path, last: int | None) -> str | None:
    if last is None:
        return None
    path = folder / round_name(last) / ROUND_NAME
    return read_document(path, Round).after_sha256 if last else read_document(path, Beginning).global_sha256


def _write(path: Path, document: Beginning | Round) -> None:
    path.write_text(document_text(document), encoding="utf-8")
    sync(path)
