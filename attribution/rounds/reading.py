"""A folder of recorded rounds, read: every hash checked, every round on top of the one before.

Memory is bounded, whatever the folder holds, and nothing outside it is looked at: a link is refused. Whether the
numbers are sound, whose statements hold and what the updates come to is for whoever imports them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attribution.errors import RoundsError
from attribution.files.untrusted import in_one_line
from attribution.rounds.documents import (
    FEDERATION_NAME,
    GLOBAL_NAME,
    ROUND_NAME,
    Beginning,
    Federation,
    Round,
    read_document,
    round_name,
    update_name,
)
from attribution.rounds.stored_tensors import StoredTensors, read_stored

_ROUND = re.compile(r"round-[0-9]{4,9}")


@dataclass(frozen=True)
class RecordedRounds:
    """A folder of rounds that were checked.

    Attributes:
        folder: where they are.
        federation: who trained together.
        beginning: what training began with.
        rounds: from the first to the last.
    """

    folder: Path
    federation: Federation
    beginning: Beginning
    rounds: tuple[Round, ...]

    def global_path(self, number: int) -> Path:
        """The global model after a round, or what training began with for round 0."""
        return self.folder / round_name(number) / GLOBAL_NAME

    def update_path(self, number: int, client: str) -> Path:
        """What a client sent in a round."""
        return self.folder / round_name(number) / update_name(client)


def read_rounds(folder: Path, require: Callable[[Path], object] = lambda _first: None) -> RecordedRounds:
    """The rounds in a folder.

    `require` may refuse the file of the first global model before anything is hashed: all others have to be like it,
    and a hash of what a stranger claims takes as long as the stranger likes.

    Raises:
        RoundsError: naming the file and the field that is missing, altered, or does not follow.
    """
    federation = read_federation(folder)
    numbers = round_numbers(folder)
    if len(numbers) < 2:
        raise RoundsError(f"{folder}: holds no round that was trained")
    beginning = read_document(folder / round_name(0) / ROUND_NAME, Beginning)
    rounds = tuple(read_document(folder / round_name(number) / ROUND_NAME, Round) for number in numbers[1:])
    recorded = RecordedRounds(folder, federation, beginning, rounds)
    _check_chain(recorded)
    require(recorded.global_path(0))
    _check_files(recorded)
    return recorded


def read_federation(folder: Path) -> Federation:
    """Who trained together, as the front page of a folder says.

    Raises:
        RoundsError: there is none, or it is malformed.
    """
    try:
        return read_document(folder / FEDERATION_NAME, Federation)
    except RoundsError as error:
        if (folder / FEDERATION_NAME).exists():
            raise
        raise RoundsError(f"{error}; is {folder} a folder of recorded rounds?") from error


def round_numbers(folder: Path) -> list[int]:
    """The numbers of the rounds in a folder, from 0 without a gap; empty where none has been recorded.

    Raises:
        RoundsError: one is missing, or is no folder.
    """
    names = {path.name for path in folder.iterdir() if _ROUND.fullmatch(path.name)}
    for number in range(len(names)):
        path = folder / round_name(number)
        if path.name not in names:
            raise RoundsError(f"{path}: is missing, and later rounds are there")
        if path.is_symlink() or not path.is_dir():
            raise RoundsError(f"{path}: is no folder")
    return [*range(len(names))]


def _check_chain(recorded: RecordedRounds) -> None:
    """Check what the documents say of each other."""
    clients = {member.client for member in recorded.federation.members}
    before = recorded.beginning.global_sha256
    for number, each in enumerate(recorded.rounds, start=1):
        path = recorded.folder / round_name(number) / ROUND_NAME
        if each.round != number:
            raise RoundsError(f"{path}: round: is {each.round}, and the folder is that of round {number}")
        if each.before_sha256 != before:
            raise RoundsError(f"{path}: before_sha256: wrong base: round {number - 1} ended with another model")
        for field, those in (("updates", each.updates), ("missing", each.missing)):
            for client in (one.client for one in those):
                if client is not None and client not in clients:
                    raise RoundsError(f"{path}: {field}: client {client!r} is no member in {FEDERATION_NAME}")
        before = each.after_sha256


def _check_files(recorded: RecordedRounds) -> None:
    """Check that each file has the hash that its document says, that all fit the model, and that no other is there."""
    model = _read_global(recorded, 0, recorded.beginning.global_sha256, "global_sha256")
    _require_no_other(recorded.folder / round_name(0), {ROUND_NAME, GLOBAL_NAME})
    for each in recorded.rounds:
        folder = recorded.folder / round_name(each.round)
        names = {update.client: update_name(update.client) for update in each.updates}
        _require_no_other(folder, {ROUND_NAME, GLOBAL_NAME, *names.values()})
        for update in each.updates:
            path = folder / names[update.client]
            sent = read_stored(path, model)
            if sent.sha256 != update.sha256:
                raise RoundsError(f"{path}: has another hash than updates.{update.client}.sha256 of {ROUND_NAME}")
        _read_global(recorded, each.round, each.after_sha256, "after_sha256", model)


def _read_global(
    recorded: RecordedRounds, number: int, sha256: str, field: str, model: StoredTensors | None = None
) -> StoredTensors:
    path = recorded.global_path(number)
    stored = read_stored(path, model)
    if stored.sha256 != sha256:
        raise RoundsError(f"{path}: has another hash than {field} of {ROUND_NAME}")
    return stored


def _require_no_other(folder: Path, names: set[str]) -> None:
    """Refuse a file that the round's document does not name: it may be the update of a client that was dropped."""
    for path in folder.iterdir():
        if path.name not in names:
            name = in_one_line(path.name)
            raise RoundsError(f"{folder / name}: is in the folder of a round, and {ROUND_NAME} names no such file")
