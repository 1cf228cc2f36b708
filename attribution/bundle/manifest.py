"""The schema of `consortium.json`, the front page of a bundle.

Knows what a bundle claims, not whether the files beside it agree: that is `bundle`.
"""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from attribution.files.strict import StrictDocument

MANIFEST_NAME = "consortium.json"
SCHEMA_VERSION: Literal[1] = 1
_MOST_LETTERS, _MOST_BYTES = 1000, 255  # of a path, and of a name in it
_RESERVED = {"commons", "pending"}  # accounts of the ledger that no client may take for its own


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text[:80]!r} holds what cannot be printed")
    return text


def _inside_bundle(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"path {path!r} leaves the bundle")
    _printable(path)
    if len(path) > _MOST_LETTERS or any(len(part.encode(errors="replace")) > _MOST_BYTES for part in parts.parts):
        raise ValueError(f"a path of {len(path)} letters is longer than a file's may be")
    return path


def _not_reserved(client_id: str) -> str:
    if client_id in _RESERVED:
        raise ValueError(f"client id {client_id!r} is the name of a ledger account")
    return client_id


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, AfterValidator(_inside_bundle)]
ConsortiumId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ClientId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), AfterValidator(_not_reserved)]


class BaseEntry(StrictDocument):
    """The base model: where it comes from, and the hash of its weights (`references.weights_sha256`)."""

    reference: Annotated[str, Field(max_length=_MOST_LETTERS), AfterValidator(_printable)]
    sha256: Sha256


class GlobalEntry(StrictDocument):
    """The model that is served: a folder in Hugging Face format and the hash of its weights.

    `residual_norm` is the Frobenius norm of global − base − Σ D_i, which is credited to nobody.
    """

    path: RelativePath = "global"
    sha256: Sha256
    residual_norm: float = Field(ge=0, allow_inf_nan=False)


class ClientEntry(StrictDocument):
    """One member organisation and what its training changed.

    `examples` is unknown (null) for adapters trained elsewhere. `weight` is ρ_i of the last round. `path` holds the
    weighted cumulative update D_i; `last_round_path` the unweighted update C_i^R − G^{R−1} of the last round, absent
    for a client that did not take part in it. `signing_key` is what the client signs its updates with, spelled out; it
    is not written where there is none.
    """

    id: ClientId
    name: str = Field(min_length=1, max_length=200)
    examples: int | None = Field(ge=0)
    weight: float = Field(ge=0, le=1, allow_inf_nan=False)
    kind: Literal["lora", "full"]
    path: RelativePath
    sha256: Sha256
    last_round_path: RelativePath | None = None
    last_round_sha256: Sha256 | None = None
    signing_key: Annotated[str, Field(max_length=2000)] | None = None

    @model_serializer(mode="wrap")
    def _leave_out_no_key(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name != "signing_key" or value is not None}

    @model_validator(mode="after")
    def _last_round_is_whole(self) -> "ClientEntry":
        if (self.last_round_path is None) != (self.last_round_sha256 is None):
            raise ValueError(f"client {self.id!r}: last_round_path and last_round_sha256 go together")
        return self


class UpdateEntry(StrictDocument):
    """What one client sent in a round.

    `declared` is its weight as it was recorded, `weight` what that is of the round's whole: ρ_i^r. `norm` is that of
    C_i^r − G^{r−1}, unweighted; `sha256` is the hash of the tensors as they were sent; `statement` what the client
    signed of them, and `receipt` what the aggregator signed for having them: text, as it came, and judged elsewhere.
    """

    client: ClientId
    declared: float = Field(gt=0, allow_inf_nan=False)
    weight: float = Field(gt=0, le=1, allow_inf_nan=False)
    norm: float = Field(ge=0, allow_inf_nan=False)
    sha256: Sha256
    statement: str | None = None
    receipt: str | None = None


class AbsenceEntry(StrictDocument):
    """Who was asked in a round and sent nothing that counts, and why; null where it is not known who that was."""

    client: ClientId | None
    node: str | None
    reason: str


class RoundEntry(StrictDocument):
    """One recorded round; where there is no update nothing changed.

    `residual_norm` is that of G^r − G^{r−1} − Σ_i ρ_i^r (C_i^r − G^{r−1}): what the server did that is no client's.
    """

    round: int = Field(ge=1)
    before_sha256: Sha256
    after_sha256: Sha256
    residual_norm: float = Field(ge=0, allow_inf_nan=False)
    updates: tuple[UpdateEntry, ...]
    missing: tuple[AbsenceEntry, ...] = ()

    @property
    def residual_ratio(self) -> float | None:
        """The residual's norm over Σ_i ρ_i^r |C_i^r − G^{r−1}|, the mean of what clients changed.

        None where they changed nothing, and the server all the same.
        """
        changed = sum(update.weight * update.norm for update in self.updates)
        if changed:
            return self.residual_norm / changed
        return None if self.residual_norm else 0.0


class Manifest(StrictDocument):
    """`consortium.json` as a whole; `defences` are those of the aggregator, null where there were none.

    `rounds` and `start_norm`, the norm of what training began with beyond the base, are those of a recorded training,
    and are not written where there was none.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    consortium: ConsortiumId
    base: BaseEntry
    round: int = Field(ge=1)
    aggregation: Literal["fedavg-exact", "recorded"]
    global_: GlobalEntry = Field(alias="global")
    clients: tuple[ClientEntry, ...] = Field(min_length=1)
    defences: dict[str, bool | float | None] | None = None
    start_norm: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    rounds: tuple[RoundEntry, ...] | None = None

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    @model_serializer(mode="wrap")
    def _leave_out_what_was_not_recorded(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = dump(self)
        for name in ("start_norm", "rounds"):
            if document[name] is None:
                del document[name]
        return document

    @model_validator(mode="after")
    def _clients_differ(self) -> "Manifest":
        ids = [client.id for client in self.clients]
        if twice := duplicates(ids):
            raise ValueError(f"client ids {twice[:3]} occur more than once")
        return self

    @model_validator(mode="after")
    def _rounds_follow_one_another(self) -> "Manifest":
        is_recorded = self.aggregation == "recorded"
        if is_recorded in {self.rounds is None, self.start_norm is None}:
            raise ValueError("rounds, start_norm and aggregation 'recorded' go together")
        if self.rounds is None:
            return self
        if any(each.round != number for number, each in enumerate(self.rounds, 1)) or len(self.rounds) != self.round:
            raise ValueError(f"rounds: they must be those from 1 to {self.round}, each once and in order")
        known, before = {client.id for client in self.clients}, self.rounds[0].before_sha256
        for each in self.rounds:
            if each.before_sha256 != before:
                raise ValueError(
                    f"round {each.round}: wrong base: it begins with another model than the last one ended"
                )
            before = each.after_sha256
            clients = [update.client for update in each.updates]
            if wrong := [client for client in clients if client not in known]:
                raise ValueError(f"round {each.round}: client {wrong[0]!r} is none of this bundle")
            if twice := duplicates(clients):
                raise ValueError(f"round {each.round}: client {twice[0]!r} is in it twice")
        return self


def read_manifest(text: str) -> Manifest:
    """The manifest in a text that no two readers read differently.

    Raises:
        ValueError: an object in it gives a name twice; or, as pydantic's error, a field is not as it must be.
    """
    with suppress(RecursionError, json.JSONDecodeError):  # pydantic says it better
        json.loads(text, object_pairs_hook=require_unique_names)
    return Manifest.model_validate_json(text)


def require_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of those pairs, as a hook of `json.loads`.

    Raises:
        ValueError: it gives a name twice.
    """
    document = dict(pairs)
    if len(document) != len(pairs):
        twice = duplicates(name for name, _ in pairs)[0]
        raise ValueError(f"{twice[:80]!r} is given twice in one object, and readers differ in which they take")
    return document


def duplicates(values: Iterable[str]) -> list[str]:
    """What occurs more than once, in order; a stranger's list may be long, so each is looked at once."""
    return sorted(value for value, times in Counter(values).items() if times > 1)
