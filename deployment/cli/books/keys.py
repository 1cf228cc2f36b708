"""`protoken keys create | rotate | revoke | list`: who may call the service, and which key signs for it."""

from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from deployment.cli.options import (
    ACTOR,
    AS_SET,
    Config,
    Json,
    LedgerUrl,
    PepperFile,
    date,
    file_to_write,
    is_typed,
    setting_option,
)
from deployment.cli.output import print_json, say
from deployment.cli.tables import print_table
from deployment.health.signing_key import make_signing_key, require_no_lost_ledger
from deployment.settings import pepper_of, url_without_secrets
from rewards.keys.ring import OVERLAP_S, KeyRing
from rewards.keys.rules import LIMITS, Key, Role
from rewards.ledger.ledger import Ledger
from rewards.moments import DAY_US
from rewards.store.database import now_us

app = typer.Typer(help="Bearer keys of whoever calls the service, and its signing key.", no_args_is_help=True)


_ROLE_HELP = (
    "application calls the model; member reads what is its client's; operator settles; auditor reads all; "
    "admin makes keys."
)
_KeyId = Annotated[str, typer.Argument(help="Id of the key, the middle part of ptk_ID_SECRET.")]
_RoleOption = Annotated[Role | None, typer.Option("--role", help=_ROLE_HELP)]
_Label = Annotated[str | None, typer.Option("--label", help="What the key is for.")]
_Client = Annotated[str | None, typer.Option("--client", help="Whose view a member's key has.")]
_Expires = Annotated[
    datetime | None, typer.Option("--expires", formats=["%Y-%m-%d"], help="Day (UTC) from which on it is refused.")
]
_Days = Annotated[int | None, typer.Option("--days", min=1, max=36_525, help="Days until it is refused.")]
_Budget = Annotated[
    int | None, typer.Option("--token-budget", min=0, help="Tokens that an application may generate with it.")
]
_Rate = Annotated[
    int | None, typer.Option("--requests-per-minute", min=1, help="How fast an application may ask with it.")
]
_Concurrency = Annotated[
    int | None, typer.Option("--concurrent", min=1, help="Responses that an application may have under way at once.")
]
_Weight = Annotated[
    int | None, typer.Option("--weight", min=1, help="How much an application gets of a busy service; else 1.")
]
_Signing = Annotated[
    bool, typer.Option("--signing", help="Make the key that signs checkpoints and statements instead.")
]
_Name = Annotated[
    str | None,
    typer.Option("--name", help="With --signing: under which name it signs; else the log's."),
]
_Out = Annotated[Path, setting_option("signing_key", "--out", "With --signing: its file", parser=file_to_write)]
_Aside = Annotated[bool, typer.Option("--rotate", help="With --signing: keep a key in that file aside, as FILE.ID.")]


@app.command()
def create(
    ctx: typer.Context,
    role: _RoleOption = None,
    label: _Label = None,
    client: _Client = None,
    expires: _Expires = None,
    days: _Days = None,
    token_budget: _Budget = None,
    requests_per_minute: _Rate = None,
    concurrency: _Concurrency = None,
    weight: _Weight = None,
    signing: _Signing = False,
    name: _Name = None,
    out: _Out = AS_SET,
    aside: _Aside = False,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    pepper_file: PepperFile = AS_SET,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once: only a hash of it is kept. Makes the ledger where there is none yet.

    With --signing the secret goes to a file, and what is shown is the public key, by which anybody may verify.
    """
    bearer: dict[str, Any] = {
        "client": client,
        "token_budget": token_budget,
        "requests_per_minute": requests_per_minute,
        "concurrency": concurrency,
        "weight": weight,
    }
    pepper_typed, out_typed = (is_typed(ctx, option) or None for option in ("pepper_file", "out"))
    of_bearer = [label, expires, days, pepper_typed, *bearer.values()]
    _require_one_kind(signing, role, of_bearer, [name, out_typed, aside or None])
    if expires is not None and days is not None:
        raise typer.BadParameter("give either --expires or --days")
    if not aside:  # a new key beside the old one is for new books, where there are none
        require_no_lost_ledger(ledger, out)
    if Ledger.prepare(ledger):
        typer.echo(f"protoken: there was no ledger, so a new one was made: {url_without_secrets(ledger)}", err=True)
    if role is None:
        public = make_signing_key(ledger, name, out, rotate=aside)
        _show({"public": public, "file": str(out)}, public, as_json=as_json)
        return
    text = label or "unnamed"
    with closing(KeyRing(ledger, pepper_of(ledger, pepper_file))) as keys:
        key = keys.create(role, text, actor=ACTOR, expires_at_us=_expiry(expires, days), **bearer)
    _show({"key": key, "role": role, "label": text}, key, as_json=as_json)


@app.command()
def rotate(
    key_id: _KeyId,
    overlap_hours: Annotated[
        int, typer.Option("--overlap-hours", min=0, help="How long the old key still works.")
    ] = OVERLAP_S // 3600,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    pepper_file: PepperFile = AS_SET,
    as_json: Json = False,
) -> None:
    """Make a new key in the place of one, with its role, label, client and limits, and show it, this once."""
    with closing(KeyRing(ledger, pepper_of(ledger, pepper_file))) as keys:
        key = keys.rotate(key_id, actor=ACTOR, overlap_s=overlap_hours * 3600)
    _show({"key": key, "rotated_from": key_id}, key, as_json=as_json)


@app.command()
def revoke(key_id: _KeyId, ledger: LedgerUrl = AS_SET, _config: Config = None) -> None:
    """Refuse a key from now on; a running service does so within seconds."""
    with closing(KeyRing(ledger, None)) as keys:
        keys.revoke(key_id, actor=ACTOR)
    say(f"revoked {key_id}", soft_wrap=True)


@app.command("list")
def list_(ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False) -> None:
    """List the keys, without their secrets."""
    with closing(KeyRing(ledger, None)) as ring:
        keys, at_us = ring.list(), now_us()
    if as_json:
        print_json([{**asdict(key), "state": key.state(at_us)} for key in keys])
        return
    columns = (
        "key",
        "role",
        "label",
        "client",
        "state",
        "created",
        "expires",
        "last used",
        "budget",
        "a minute",
        "at once",
        "weight",
    )
    print_table("keys", columns, [_row(key, at_us) for key in keys])


def _require_one_kind(signing: bool, role: Role | None, bearer: list[Any], signer: list[Any]) -> None:
    """Refuse options that belong to the other kind of key, instead of passing over them."""
    if signing == (role is not None):
        raise typer.BadParameter("give either --role, for a bearer key, or --signing, for the signing key")
    if any(value is not None for value in (bearer if signing else signer)):
        raise typer.BadParameter(
            "--signing goes with --name, --out and --rotate alone"
            if signing
            else "--name, --out and --rotate go with --signing; `protoken keys rotate ID` rotates a bearer key"
        )


def _expiry(expires: datetime | None, days: int | None) -> int | None:
    if expires is not None:
        return int(expires.replace(tzinfo=UTC).timestamp()) * 1_000_000
    return None if days is None else now_us() + days * DAY_US


def _row(key: Key, at_us: int) -> tuple[str, ...]:
    limits = (getattr(key, name) for name in LIMITS)
    return (
        key.key_id,
        key.role,
        key.label,
        key.client or "–",
        key.state(at_us),
        date(key.created_at_us),
        date(key.expires_at_us),
        date(key.last_used_at_us),
        *("–" if limit is None else str(limit) for limit in limits),
    )


def _show(document: dict[str, str], line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        typer.echo(line)  # nothing else on stdout, so that a shell can take it
