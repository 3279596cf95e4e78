"""Runs one command line: every way to fail becomes one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import typer

from tunrouter.cli.parser import parser
from tunrouter.cli.text import printable
from tunrouter.errors import TunrouterError

USAGE: Final = 2
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
TRACEBACK_VARIABLE: Final = "TUNROUTER_TRACEBACK"
SHOWN_WARNING: Final = (
    "warning: a password on the command line stays in the shell's history; "
    "better: --password-file FILE or TUNROUTER_PASSWORD"
)
# The parser's errors have no public name: they are a base of the one that has.
_UsageError: Final = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def run(arguments: Sequence[str], *, password_shown: bool = False) -> int:
    """The exit code of `tunrouter ARGUMENTS`."""
    if password_shown:
        _say(SHOWN_WARNING)
    try:
        code = parser(arguments)(list(arguments), prog_name="tunrouter", standalone_mode=False)
        sys.stdout.flush()
    except TunrouterError as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; nothing may be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if isinstance(error, _UsageError):
            _say(_usage(error))
            return USAGE
        return _internal(error)
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> str:
    """The parser's message in our one-line form."""
    message = str(getattr(error, "format_message", error.__str__)()).replace("\n", " ")
    message = message.replace(". Did you mean", ", did you mean").rstrip(".?")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "tunrouter"
    return f"{message[:1].lower()}{message[1:]}; see: {command} --help"


def _internal(error: Exception) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        raise error
    _say(f"internal error: {error!r}; run it again with {TRACEBACK_VARIABLE}=1 and report what it prints")
    return 1


def _say(line: str) -> None:
    typer.echo(f"tunrouter: {printable(line)}", err=True)
