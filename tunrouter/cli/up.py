"""`tunrouter up`: checks the configuration, then becomes the agent.

Law: the agent is a fresh interpreter in the same process, with the configuration in a sealed memory file. So it carries
neither the command line's libraries nor a password in its arguments or environment.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import tunrouter
from tunrouter.errors import HostError

if TYPE_CHECKING:
    from tunrouter.config import Config, Given

AGENT = "tunrouter.agent"


def run(flags: Mapping[str, object]) -> None:
    """Does not return; raises ConfigError or HostError."""
    _require_root()
    from tunrouter.cli.settings import settings
    from tunrouter.config import Given

    given = Given.of(flags, os.environ)  # first: the settings take the passwords out of the environment
    become(AGENT, settings(flags).config, given)


def become(module: str, config: Config, given: Given) -> NoReturn:
    """A module of ours that runs for long, in this process. Raises OSError."""
    from tunrouter.config import hand_over

    descriptor = hand_over(config, given)
    # -P: it must not import from the directory it happens to be started in.
    command = [sys.executable, "-P", "-m", module, "--config-fd", str(descriptor)]
    sys.stdout.flush()
    os.execve(sys.executable, command, _environment())  # noqa: S606 (a list of arguments)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError("up needs root", f"run as root: sudo tunrouter {shown_arguments(sys.argv[1:])}")


def shown_arguments(arguments: list[str]) -> str:
    """The arguments for a shell, without the password."""
    shown = []
    hide_next = False
    for argument in arguments:
        if hide_next:
            shown.append("…")
        elif argument.startswith("--password="):
            shown.append("--password=…")
        else:
            shown.append(shlex.quote(argument))
        hide_next = not hide_next and argument == "--password"
    return " ".join(shown)


def _environment() -> dict[str, str]:
    """Ours (its passwords are gone since the configuration was read); a package that is not installed stays found."""
    environment = dict(os.environ)
    home = str(Path(tunrouter.__file__).parent.parent)
    if home not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        rest = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{home}{os.pathsep}{rest}" if rest else home
    return environment
