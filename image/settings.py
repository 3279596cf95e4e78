"""This machine's settings of pip and apt, for a build that runs elsewhere: `settings.py DIRECTORY` writes pip.conf,
apt.conf and, one a line as for `--volume`, what they name: certificates, constraints, indexes on disk.

Law: inside, what is named stands below /run/host, where it hides no file of a system that is being built.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

INSIDE = "/run/host"
NAMED = re.compile(r"(?<![\w:/])(file://)?(/[^\s\"',]+)")


def main(directory: Path) -> None:
    found: set[Path] = set()
    for name, text in (("pip.conf", _pip()), ("apt.conf", _apt())):
        (directory / name).write_text(NAMED.sub(lambda match: _moved(match, found), text))
    volumes = (f"{path}:{INSIDE}{path}:ro\n" for path in sorted(found))
    (directory / "volumes").write_text("".join(volumes))


def _moved(match: re.Match[str], found: set[Path]) -> str:
    scheme, path = match[1] or "", Path(match[2])
    if not path.exists() or path == Path("/"):
        return match[0]
    # An index has its files beside it.
    beside = bool(scheme) and path.is_dir() and path.parent != Path("/")
    found.add(path.parent if beside else path)
    return f"{scheme}{INSIDE}{path}"


def _pip() -> str:
    settings: dict[str, str] = {}
    for line in _said(sys.executable, "-m", "pip", "config", "list").splitlines():
        where, equals, value = line.partition("=")
        section, _, key = where.rpartition(".")
        # Variables, which come first, are stronger than files.
        if equals and section in (":env:", "global", "install"):
            settings.setdefault(key, value.strip("'\""))
    return "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in settings.items())])


def _apt() -> str:
    return "".join(
        f"{line}\n" for line in _said("apt-config", "dump").splitlines() if re.match(r"Acquire::(?!cdrom)", line)
    )


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:  # not a Debian
        return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
