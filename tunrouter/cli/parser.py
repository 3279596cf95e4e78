"""The parser typer makes of `app`, with every value left as the text it is.

Law: the configuration and the commands check their own values. A typer that checks them too does it through pydantic,
whose import costs more time than a whole `tunrouter status`; so where it has that hook, the hook passes values through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import typer
import typer.core
import typer.main
import typer.models

from tunrouter.cli.app import app

_HOOK: Final = "get_runtime_param"


class _AsGiven:
    """Stands where typer's conversion of a parameter would."""

    def coerce(self, value: object, param: Any, ctx: object) -> object:
        del ctx
        return () if value is None and (param.multiple or param.nargs == -1) else value


def parser(arguments: Sequence[str] = ()) -> Any:
    """The root command; typer keeps the types of its parser to itself.

    Of the commands only the one that `arguments` name is made: making all of them takes longer than most of them run.
    """
    as_given = _AsGiven()
    for kind in (typer.core.TyperOption, typer.core.TyperArgument):
        if hasattr(kind, _HOOK):
            setattr(kind, _HOOK, lambda _: as_given)
    commands, groups = app.registered_commands, app.registered_groups
    first = next((argument for argument in arguments if argument != "--local"), None)
    named = [command for command in commands if _name(command) == first]
    try:
        if named:
            app.registered_commands, app.registered_groups = named, []
        return typer.main.get_command(app)
    finally:
        app.registered_commands, app.registered_groups = commands, groups


def _name(command: typer.models.CommandInfo) -> str:
    """As typer makes it of the function's."""
    return command.name or typer.main.get_command_name(getattr(command.callback, "__name__", ""))
