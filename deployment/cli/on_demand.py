"""Commands that are imported when they are called, so that help and the light ones wait for no model and no Ray."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from deployment.cli.extras import require_extra


class Deferred(TyperCommand):
    """A command, or a noun with its commands, as help lists it.

    Args:
        name: as it is typed.
        place: where it is, as `module:name`, a function or a Typer app.
        summary: the first sentence of its help.
        extra: of the installation, without which it cannot be imported; None where the base does.
        noun: under which it stands, where it does and needs an extra.
    """

    def __init__(self, name: str, place: str, summary: str, *, extra: str | None = None, noun: str = "") -> None:
        super().__init__(name, help=summary)
        self._place = place
        self._extra = extra
        self._noun = noun

    def load(self) -> Any:
        """The command itself.

        Raises:
            MissingExtraError: this installation has not what it needs.
        """
        if self._extra is not None:
            words = ("protoken", self._noun, self.name or "")
            require_extra(self._extra, f"`{' '.join(word for word in words if word)}`")
        module, _, name = self._place.partition(":")
        target = getattr(import_module(module), name)
        if isinstance(target, typer.Typer):
            return typer.main.get_group(target)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(target)
        return typer.main.get_command(alone)


class OnDemand(TyperGroup):
    """A group of commands, of which each is loaded when it is the one that was typed."""

    deferred: tuple[Deferred, ...] = ()

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in self.deferred:
            self.add_command(command)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """As for any group; what was named is loaded."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(command), rest


def load_command(command: Any) -> Any:
    """The command itself, for one that may be deferred."""
    return command.load() if isinstance(command, Deferred) else command
