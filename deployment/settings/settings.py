"""The settings of the service: one frozen object.

Knows what each setting means and its range, not who uses it: `app` hands each part what it needs.
"""

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rewards.keys import pepper

Method = Literal["credit", "paper"]
DType = Literal["float32", "bfloat16", "float16"]
ENVIRONMENT_PREFIX = "PROTOKEN_"
_SQLITE = "sqlite:///"
_POSTGRESQL = "postgresql://"
_LEDGER = f"{_SQLITE}var/ledger.db"
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def _absolute_path(path: Path) -> Path:
    return path.expanduser().absolute()


AbsolutePath = Annotated[Path, AfterValidator(_absolute_path)]


def _absolute_url(url: str) -> str:
    """A relative SQLite path made absolute: replicas do not run in the folder where the service was started."""
    if url.startswith(_POSTGRESQL) and _names_database(url):
        return url
    if not url.startswith(_SQLITE):
        raise ValueError(
            f"the ledger is a file, as in {_LEDGER}, or a database, as in {_POSTGRESQL}user@host/database, "
            f"not {url_without_secrets(url)!r}"
        )
    path = url.removeprefix(_SQLITE)
    if path in {"", ":memory:"}:
        raise ValueError("the ledger must be a file: a ledger in memory is lost with the process")
    return f"{_SQLITE}{_absolute_path(Path(path))}"


def _names_database(url: str) -> bool:
    """Whether the URL is whole; an odd one is refused here, as later errors would repeat it with its password."""
    try:
        parts = urlsplit(url)
        return parts.port != 0 and len(parts.path) > 1 and "@" not in parts.path
    except ValueError:
        return False


def url_without_secrets(url: str) -> str:
    """A ledger's URL as it may be shown: without password and options, and not at all where it is odd."""
    if url.startswith(_SQLITE):
        return url
    kind, slashes, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    if not slashes or set("@/?") & set(login):
        return "…"
    user, colon, _password = login.partition(":")
    return f"{kind}://{user}{':***' if colon else ''}{at}{place.partition('?')[0]}"


def _split_list(given: Any) -> Any:
    """A list as the environment spells it, its items apart by commas."""
    return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


def _origin(text: str) -> str:
    """An origin as browsers spell it (RFC 6454, section 6.2), or `*`: no path, no slash at the end, small letters."""
    if not _ORIGIN.fullmatch(text):
        raise ValueError("an origin is spelled https://app.example or http://localhost:3000")
    return text


Origin = Annotated[str, AfterValidator(_origin)]


def _one_device(gpus: float) -> float:
    """A part of a GPU or a whole one, as a replica does not divide its model among several."""
    if gpus > 1:
        raise ValueError(
            "a replica holds one model on one device, so that 1 is the most; more replicas use more GPUs, and a model "
            "that no single one holds is divided by an engine of its own, such as vLLM"
        )
    return gpus


def _engine_url(url: str) -> str:
    """Where an engine is; no login, query or fragment, which would be sent with each request or shown."""
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("an engine is at a URL such as http://127.0.0.1:8001, without login, query or fragment")
    return url


class EngineSettings(BaseModel):
    """Who makes the tokens: `embedded` is our own decoder, `openai` a server that takes and returns token ids.

    `model` None is the consortium's name. The server's key is never a setting: it is in the environment, as
    PROTOKEN_ENGINE_API_KEY, or in the file `api_key_file`. `weights` says what a server holds that serves the bundle's
    weights in another form, such as the hash of quantised ones: receipts name it beside what is scored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: Literal["embedded", "openai"] = "embedded"
    url: Annotated[str, AfterValidator(_engine_url)] | None = None
    model: str | None = Field(default=None, min_length=1)
    api_key_file: AbsolutePath | None = None
    weights: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "openai" and self.url is None:
            raise ValueError("an engine of kind openai needs its url, such as http://127.0.0.1:8001")
        if self.kind == "embedded" and self.model_fields_set - {"kind"}:
            raise ValueError("url, model, api_key_file and weights are of an engine of kind openai")
        return self


class Settings(BaseModel):
    """Everything the service can be told; see `configs/serve.yaml` for the same list with comments.

    `more_bundles` are of other consortia, each with replicas of its own.
    `cpus_per_replica` None divides all processors of the machine, but those of `scorers`, among all replicas.
    `max_tokens_cap` None leaves the model's context as the only cap. `metrics_port` 0 starts no exporter,
    `replica_metrics_port` 0 leaves the choice to Ray. `nodes` None takes as many as `tolerance` wants.
    `credit_fraction` 1 measures every response.
    `replica_ledger` None lets replicas book with `ledger`. `pepper_file` None leaves the choice to `pepper_of`.
    `keep_alive_s` 0 sends no comments in a stream that is silent.
    `engine` makes the tokens. `policy` None settles nothing here. `texts` None keeps no texts of responses.
    """

    # Errors do not repeat what was given, and the ledger's URL is not shown: there may be a password in it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bundle: AbsolutePath
    more_bundles: Annotated[tuple[AbsolutePath, ...], BeforeValidator(_split_list)] = ()
    ledger: Annotated[str, AfterValidator(_absolute_url)] = Field(default=_LEDGER, validate_default=True, repr=False)
    replica_ledger: Annotated[str, AfterValidator(_absolute_url)] | None = Field(default=None, repr=False)
    pepper_file: AbsolutePath | None = None
    signing_key: AbsolutePath = Field(default=Path("var/signing.key"), validate_default=True)
    seal_interval_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    policy: AbsolutePath | None = None
    spool: AbsolutePath = Field(default=Path("var/spool"), validate_default=True)
    replay_window_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    texts: AbsolutePath | None = None
    texts_window_s: float = Field(default=7 * 86_400.0, gt=0, allow_inf_nan=False)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    cors_origins: Annotated[tuple[Origin, ...], BeforeValidator(_split_list)] = ()
    metrics_port: int = Field(default=9464, ge=0, le=65535)
    replica_metrics_port: int = Field(default=9465, ge=0, le=65535)
    replicas: int = Field(default=1, ge=1)
    cpus_per_replica: int | None = Field(default=None, ge=1)
    gpus_per_replica: Annotated[float, AfterValidator(_one_device)] = Field(default=0.0, ge=0, allow_inf_nan=False)
    scorers: int = Field(default=0, ge=0)
    cpus_per_scorer: int = Field(default=1, ge=1)
    gpus_per_scorer: Annotated[float, AfterValidator(_one_device)] = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_batch: int = Field(default=32, ge=1)
    max_batch_tokens: int = Field(default=65_536, ge=1)
    max_waiting: int = Field(default=64, ge=0)
    max_unscored: int = Field(default=256, ge=1)
    serve_dtype: DType = "float32"
    score_dtype: DType = "float32"
    method: Method = "credit"
    tolerance: float = Field(default=0.02, gt=0, le=1)
    nodes: int | None = Field(default=None, ge=1, le=64)
    credit_fraction: Decimal = Field(default=Decimal(1), gt=0, le=1, decimal_places=6)
    engine: EngineSettings = EngineSettings()
    keep_alive_s: float = Field(default=15.0, ge=0, allow_inf_nan=False)
    default_max_tokens: int = Field(default=256, ge=1)
    max_tokens_cap: int | None = Field(default=None, ge=1)
    shutdown_timeout_s: float = Field(default=300.0, gt=0, allow_inf_nan=False)

    @property
    def bundles(self) -> tuple[Path, ...]:
        """The bundles of all consortia, each to be served under its own name."""
        return (self.bundle, *self.more_bundles)

    @model_validator(mode="after")
    def _scored_somewhere(self) -> Self:
        if self.scorers and self.engine.kind != "embedded":
            raise ValueError("scorers are for the engine embedded; with another, replicas only score: set replicas")
        return self

    @property
    def processors(self) -> int:
        """Processors of one replica, which is also the number of its compute threads."""
        left = (os.cpu_count() or 1) - self.scorers * self.cpus_per_scorer
        return self.cpus_per_replica or max(1, left // (self.replicas * len(self.bundles)))

    @property
    def device(self) -> str:
        """Where a replica puts the model: `cuda` when it is given any part of a GPU, else `cpu`."""
        return "cuda" if self.gpus_per_replica > 0 else "cpu"


def pepper_of(ledger: str, pepper_file: Path | None = None) -> bytes:
    """The secret that the hashes of a ledger's keys are made with; made on first use, and the same for whoever asks.

    It lies in `pepper_file`, else beside an SQLite ledger as `<ledger>.pepper` and for PostgreSQL in `var/pepper`:
    never in the database, whose copy then opens nothing.

    Args:
        ledger: URL of a prepared ledger, as the setting has it.
        pepper_file: the setting of that name.

    Raises:
        KeyRingError: the file is missing although the ledger has valid keys, or cannot be used.
        LedgerError: the file is missing and the ledger cannot be read.
    """
    return pepper.load_or_make(pepper_path(ledger, pepper_file), ledger)


def pepper_path(ledger: str, pepper_file: Path | None = None) -> Path:
    """The file of that secret, with the same arguments."""
    beside = Path(f"{ledger.removeprefix(_SQLITE)}.pepper") if ledger.startswith(_SQLITE) else Path("var/pepper")
    return _absolute_path(pepper_file or beside)
