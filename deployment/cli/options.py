"""Options that several nouns of the command line share; one that is a setting means the same in every command.

A setting is what its option says, else PROTOKEN_<NAME> of the environment, else the file of --config, else its default:
commands get what came of that, and read neither environment nor file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from deployment.errors import SettingsError
from deployment.settings import find_setting, variable_of
from rewards.moments import date_of

ACTOR = "command line"
"""How the ledger's events name whoever has a shell on the machine."""

AS_SET: Any = None
"""Default of an option that is a setting: then environment, file or the setting's own default say it."""

_CONFIG = "protoken.config"


def file_to_write(text: str) -> Path:
    """The path of one file that a command writes; with `parser=`, as paths forget how they were spelled.

    Raises:
        SettingsError: it names a folder, be there one or not.
    """
    if text.rpartition("/")[2] in {"", ".", ".."} or Path(text).is_dir():
        raise SettingsError(f"{text!r} names a folder; a file is to be written, so name that")
    return Path(text)


def setting_option(
    setting: str, flag: str, meaning: str, *, is_needed: bool = False, parser: Callable[[str], Any] | None = None
) -> Any:
    """An option that is a setting of the service; the command has to take `Config` too.

    Args:
        setting: its name.
        flag: how the command line spells it.
        meaning: how help explains it.
        is_needed: whether the command is of no use without it.
        parser: what makes a value of what was typed; None leaves that to its type.
    """

    def find(ctx: typer.Context, given: Any) -> Any:
        value = find_setting(setting, given, ctx.meta[_CONFIG])
        if value is None and is_needed:
            where = f"{flag}, {variable_of(setting)} or {setting} in the file of --config"
            raise typer.BadParameter(f"it is needed, and neither {where} says it")
        return value

    text = f"{meaning}; else {variable_of(setting)}, else the settings file's."
    metavar = None if parser is None else "FILE"
    return typer.Option(flag, help=text, callback=find, show_default=False, parser=parser, metavar=metavar)


def is_typed(ctx: typer.Context, name: str) -> bool:
    """Whether a parameter of a command was typed, and not found elsewhere."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _remember(ctx: typer.Context, file: Path | None) -> Path | None:
    ctx.meta[_CONFIG] = file
    return file


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="PROTOKEN_CONFIG",
        is_eager=True,  # the settings are looked for when this is known
        callback=_remember,
        help="Settings file (YAML), see configs/serve.yaml.",
    ),
]
LedgerUrl = Annotated[
    str, setting_option("ledger", "--ledger", "Ledger, sqlite:///FILE or postgresql://USER@HOST/DATABASE")
]
PepperFile = Annotated[
    Path | None,
    setting_option("pepper_file", "--pepper-file", "Secret that keys are hashed with, if not beside the ledger"),
]
BundleFolder = Annotated[
    Path, setting_option("bundle", "--bundle", "Folder of the consortium's bundle", is_needed=True)
]
KeyFile = Annotated[Path, setting_option("signing_key", "--key", "File of the signing key")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def date(microseconds: int | None) -> str:
    """A moment of the ledger as people read it, in UTC; a dash where there is none."""
    if microseconds is None:
        return "–"
    return f"{date_of(microseconds):%Y-%m-%d %H:%M:%S}"
