"""The schema of a folder of recorded rounds: `rounds.json` and each round's `round.json`.

Knows what a document claims, not whether the tensors beside it agree: that is `reading`.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from attribution.bundle.manifest import ClientId, ConsortiumId, Sha256, duplicates, require_unique_names
from attribution.errors import RoundsError
from attribution.files.strict import StrictDocument
from attribution.files.untrusted import first_problem, in_one_line, read_text

FEDERATION_NAME = "rounds.json"
ROUND_NAME = "round.json"
GLOBAL_NAME = "global.safetensors"
MOST_STATEMENT_LETTERS = 16_384
_MOST_BYTES = 1 << 24
_MOST_MEMBERS = 10_000
Document = TypeVar("Document", bound=BaseModel)
Line = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\r\n]*$")]
NodeId = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]


class _Strict(StrictDocument):
    model_config = ConfigDict(strict=True)


class Member(_Strict):
    """A member organisation, and by what its node is known.

    `node_public_key` is the public key of its SuperNode, one line of OpenSSH's; `node` a node's number, where there
    are no keys (in a simulation). `signing_key` is the key that its statements hold under.
    """

    client: ClientId
    name: str = Field(min_length=1, max_length=200)
    node_public_key: Annotated[str, Field(max_length=2000)] | None = None
    node: NodeId | None = None
    signing_key: Annotated[str, Field(max_length=2000)] | None = None

    @property
    def public_part(self) -> str | None:
        """Of `signing_key`, which is name+id+key, the key alone: the same under any name. None where there is none."""
        return None if self.signing_key is None else self.signing_key.strip().split("+", 2)[-1]


class Federation(_Strict):
    """`rounds.json`: who trains together; `adapter` is PEFT's `adapter_config.json`, null for whole models."""

    schema_version: Literal[1] = 1
    consortium: ConsortiumId
    members: tuple[Member, ...] = Field(min_length=1, max_length=_MOST_MEMBERS)
    adapter: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _members_differ(self) -> "Federation":
        for field in ("client", "node_public_key", "node"):
            values = [value for member in self.members if (value := getattr(member, field)) is not None]
            if twice := duplicates(values):
                raise ValueError(f"{field} {twice[0]!r} is given to two members")
        keys = [member.public_part for member in self.members if member.public_part is not None]
        if twice := duplicates(keys):
            raise ValueError(f"signing_key …{twice[0]!r} is given to two members, so either could sign for the other")
        return self


class Beginning(_Strict):
    """`round.json` of round 0: the hash of what training began with."""

    round: Literal[0] = 0
    global_sha256: Sha256


class RecordedUpdate(_Strict):
    """What one client sent; `statement` is what it signed, as it came and unjudged."""

    client: ClientId
    weight: float = Field(gt=0, allow_inf_nan=False)
    sha256: Sha256
    statement: Annotated[str, Field(max_length=MOST_STATEMENT_LETTERS)] | None = None


class Missing(_Strict):
    """Who was to take part and was left out, and why; `client` is null for a node that is no member's."""

    client: ClientId | None = None
    node: NodeId | None = None
    reason: Line


class Round(_Strict):
    """`round.json` of a round that was trained; where there is no update nothing changed."""

    round: int = Field(ge=1)
    before_sha256: Sha256
    after_sha256: Sha256
    updates: tuple[RecordedUpdate, ...] = Field(max_length=_MOST_MEMBERS)
    missing: tuple[Missing, ...] = Field(default=(), max_length=_MOST_MEMBERS)

    @model_validator(mode="after")
    def _holds_together(self) -> "Round":
        clients = [update.client for update in self.updates]
        if twice := duplicates(clients):
            raise ValueError(f"updates: client {twice[0]!r} is in the round twice")
        if both := sorted({each.client for each in self.missing if each.client in set(clients)} - {None}):
            raise ValueError(f"missing: client {both[0]!r} is among the updates, too")
        if not clients and self.before_sha256 != self.after_sha256:
            raise ValueError("after_sha256: nobody sent an update, and yet the model is another")
        whole = sum(update.weight for update in self.updates)
        for update in self.updates:
            if not update.weight / whole > 0:  # the sum may be infinite
                raise ValueError(f"updates: client {update.client!r}: weight {update.weight} is no part of {whole}")
        return self


def round_name(number: int) -> str:
    """What the folder of a round is called."""
    return f"round-{number:04d}"


def update_name(client: str) -> str:
    """What the file of a client's update is called."""
    return f"update-{client}.safetensors"  # a client may be called `global`


def read_document(path: Path, kind: type[Document]) -> Document:
    """The document in a file.

    Raises:
        RoundsError: naming the file and the field that is not as it must be.
    """
    if path.is_symlink():
        raise RoundsError(f"{path}: is a link; the file itself is needed")
    text = read_text(path, RoundsError)
    if len(text) > _MOST_BYTES:
        raise RoundsError(f"{path}: is longer than {_MOST_BYTES} letters")
    try:
        json.loads(text, object_pairs_hook=require_unique_names)
        return kind.model_validate_json(text)
    except RecursionError:
        raise RoundsError(f"{path}: is nested too deeply") from None
    except ValidationError as error:
        raise RoundsError(f"{path}: {first_problem(error)}") from error
    except ValueError as error:
        raise RoundsError(f"{path}: not readable as JSON: {in_one_line(error)}") from error


def document_text(document: BaseModel) -> str:
    """The document as it stands in its file."""
    return json.dumps(document.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
