"""Runs one host tool: a list of arguments, never a shell, with a bounded time and a one-line error."""

from __future__ import annotations

import subprocess
from typing import Final

from tunrouter.errors import HostError

SECONDS: Final = 20.0
MAX_ERROR_CHARACTERS: Final = 300


def run(arguments: list[str], text: str = "") -> str:
    """What the tool printed; HostError where it is missing, slow or fails."""
    tool = arguments[0]
    try:
        done = subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        raise HostError(f"{tool} is not installed", f"install the package that has {tool}") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"{tool} did not answer within {SECONDS:.0f} s", "see which program holds its lock") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:MAX_ERROR_CHARACTERS]
        raise HostError(f"{' '.join(arguments[:3])}: {said or f'exit code {done.returncode}'}", "try it by hand")
    return done.stdout
