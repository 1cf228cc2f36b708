"""The schema of `consortium.json`, the front page of a bundle.

Knows what a bundle claims, not whether the files beside it agree: that is `bundle`.
"""

import json
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MANIFEST_NAME = "consortium.json"
SCHEMA_VERSION: Literal[1] = 1
_RESERVED = {"commons", "pending"}  # accounts of the ledger that no client may take for its own


def _inside_bundle(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"path {path!r} leaves the bundle")
    return path


def _not_reserved(client_id: str) -> str:
    if client_id in _RESERVED:
        raise ValueError(f"client id {client_id!r} is the name of a ledger account")
    return client_id


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, AfterValidator(_inside_bundle)]
ConsortiumId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ClientId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), AfterValidator(_not_reserved)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseEntry(_Strict):
    """The base model: where it comes from, and the hash of its weights (`references.weights_sha256`)."""

    reference: str
    sha256: Sha256


class GlobalEntry(_Strict):
    """The model that is served: a folder in Hugging Face format and the hash of its weights.

    `residual_norm` is the Frobenius norm of global − base − Σ D_i, which is credited to nobody.
    """

    path: RelativePath = "global"
    sha256: Sha256
    residual_norm: float = Field(ge=0, allow_inf_nan=False)


class ClientEntry(_Strict):
    """One member organisation and what its training changed.

    `examples` is unknown (null) for adapters trained elsewhere. `weight` is ρ_i of the last round. `path` holds the
    weighted cumulative update D_i; `last_round_path` the unweighted update C_i^R − G^{R−1} of the last round, absent
    for a client that did not take part in it.
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

    @model_validator(mode="after")
    def _last_round_is_whole(self) -> "ClientEntry":
        if (self.last_round_path is None) != (self.last_round_sha256 is None):
            raise ValueError(f"client {self.id!r}: last_round_path and last_round_sha256 go together")
        return self


class Manifest(_Strict):
    """`consortium.json` as a whole; `defences` are those of the aggregator, null where there were none."""

    schema_version: Literal[1] = SCHEMA_VERSION
    consortium: ConsortiumId
    base: BaseEntry
    round: int = Field(ge=1)
    aggregation: Literal["fedavg-exact"]
    global_: GlobalEntry = Field(alias="global")
    clients: tuple[ClientEntry, ...] = Field(min_length=1)
    defences: dict[str, bool | float | None] | None = None

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _clients_differ(self) -> "Manifest":
        ids = [client.id for client in self.clients]
        twice = {client_id for client_id in ids if ids.count(client_id) > 1}
        if twice:
            raise ValueError(f"client ids {sorted(twice)} occur more than once")
        return self


def read_manifest(text: str) -> Manifest:
    """The manifest in a text that no two readers read differently.

    Raises:
        ValueError: an object in it gives a name twice; or, as pydantic's error, a field is not as it must be.
    """
    with suppress(RecursionError, json.JSONDecodeError):  # pydantic says it better
        json.loads(text, object_pairs_hook=_require_unique)
    return Manifest.model_validate_json(text)


def _require_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice in one object, and readers differ in which they take")
    return document
