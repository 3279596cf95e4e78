"""The parser typer makes of `app`, with every value left as the text it is.

Law: the configuration and the commands check their own values. A typer that checks them too does it through pydantic,
whose import costs more time than a whole `tunrouter status`; so where it has that hook, the hook passes values through.
"""

from __future__ import annotations

from typing import Any, Final

import typer
import typer.core

from tunrouter.cli.app import app

_HOOK: Final = "get_runtime_param"


class _AsGiven:
    """Stands where typer's conversion of a parameter would."""

    def coerce(self, value: object, param: Any, ctx: object) -> object:
        del ctx
        return () if value is None and (param.multiple or param.nargs == -1) else value


def parser() -> Any:
    """The root command; typer keeps the types of its parser to itself."""
    as_given = _AsGiven()
    for kind in (typer.core.TyperOption, typer.core.TyperArgument):
        if hasattr(kind, _HOOK):
            setattr(kind, _HOOK, lambda _: as_given)
    return typer.main.get_command(app)
