"""The directories that container runtimes read: our plugin among the binaries, our list among the configurations.

Law (libcni): a runtime takes the configuration whose file name sorts first, as soon as it is there. So each file is
renamed into place whole, the configuration last when we come and first when we go, and one that sorts before ours is
named: with it there, pods are somebody else's. Not so one of Multus, which gives pods what the next configuration
gives, and more: it is in the way only if it says to whom it delegates, and we are not among them.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tunrouter.errors import HostError

PLUGIN: Final = "tunrouter-cni"
LIST: Final = "05-tunrouter.conflist"
ASIDE: Final = ".by-tunrouter"
"""Behind the name of a configuration that we took away, and give back when we go."""
CHAINED: Final = {"portmap": {"portMappings": True}, "bandwidth": {"bandwidth": True}}
"""Plugins that come after ours where they are installed, with their capabilities."""
BROUGHT: Final = (*CHAINED, "loopback")
"""Plugins that runtimes call, and that not every host has."""
DELEGATING: Final = frozenset({"multus", "multus-shim"})
"""Plugins that give pods no network of their own, but call the next configuration's."""
VERSION_SECONDS: Final = 5.0
CONFIGURATION_BYTES: Final = 1 << 20
SUFFIXES: Final = (".conf", ".conflist", ".json")
"""Of what libcni takes for a configuration."""


class Installed(NamedTuple):
    plugin: Path
    compiled: bool
    """Else it is the one in Python."""
    conflist: Path
    version: str
    chain: tuple[str, ...]
    aside: tuple[Path, ...]
    """Configurations that were renamed."""
    left_out: tuple[str, ...] = ()
    """Plugins that are there and not in the chain, each with why."""


class Directories(NamedTuple):
    binaries: Path
    configurations: Path

    @property
    def plugin(self) -> Path:
        return self.binaries / PLUGIN

    @property
    def conflist(self) -> Path:
        return self.configurations / LIST

    def winners(self) -> list[Path]:
        """Others' configurations that runtimes take instead of ours."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.configurations))
        except OSError:
            return []
        found = [self.configurations / name for name in names if name.endswith(SUFFIXES) and name < LIST]
        return [path for path in found if not _delegates_to_us(path)]

    def hindrance(self) -> str:
        """Why pods are somebody else's although ours is installed; empty if they are not, or it is not."""
        winners = self.winners() if self.conflist.exists() else []
        return f"{winners[0]} comes before {LIST}: pods are not ours until it is gone" if winners else ""

    def missing(self) -> str:
        """What of ours somebody took away; a list that somebody changed is ours as long as it names our plugin."""
        if not self.plugin.exists():
            return str(self.plugin)
        try:
            with self.conflist.open() as file:
                return "" if PLUGIN in file.read(CONFIGURATION_BYTES) else str(self.conflist)
        except (OSError, UnicodeDecodeError):
            return str(self.conflist)


def source() -> Path:
    """The plugin as it came with this program, the compiled one where that could be built. Raises HostError."""
    for place in _places():
        if (place / PLUGIN).exists():
            return place / PLUGIN
    raise HostError(f"{PLUGIN} did not come with this program", "install the whole package again")


def _places() -> Iterator[Path]:
    """Of the compiled plugin, and of the one in Python: in a checkout, or where the package put it."""
    yield Path(__file__).parent
    yield Path(__file__).parents[2] / "cni-plugin"
    yield Path(sysconfig.get_path("data")) / "share" / "tunrouter"


def install(
    where: Directories,
    network: str,
    keys: dict[str, str],
    supported: tuple[str, ...],
    *,
    exclusive: bool,
    lenient: bool = False,
) -> Installed:
    """`keys` go into the plugin's part of the list; `supported` are the versions that it speaks, ascending. `lenient`:
    a plugin that cannot be chained is left out, instead of an error.
    """
    chain, version, left_out = _chain(where, supported, lenient=lenient)
    plugins: list[dict[str, Any]] = [{"type": PLUGIN, "capabilities": {"ips": True}, **keys}]
    plugins += [{"type": name, "capabilities": CHAINED[name]} for name in chain]
    program = source().read_bytes()
    compiled = not program.startswith(b"#!")
    with _explained():
        where.binaries.mkdir(parents=True, exist_ok=True)
        where.configurations.mkdir(parents=True, exist_ok=True)
        _put(where.plugin, program if compiled else _run_by_ours(program), 0o755)
        conflist = {"cniVersion": version, "name": network, "plugins": plugins}
        _put(where.conflist, (json.dumps(conflist, indent=2) + "\n").encode(), 0o644)
        # Only now, so that there is a network at every moment.
        aside = tuple(_set_aside(path) for path in where.winners()) if exclusive else ()
    return Installed(where.plugin, compiled, where.conflist, version, chain, aside, left_out)


def _chain(
    where: Directories, supported: tuple[str, ...], *, lenient: bool
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """The plugins that come after ours, the newest version that all speak, and what is left out. Raises HostError."""
    chain: dict[str, tuple[str, ...]] = {}
    left_out = []
    for name in CHAINED:
        if not (where.binaries / name).exists():
            continue
        try:
            speaks = versions(where.binaries / name)
            highest(supported, (*chain.values(), speaks))
        except HostError as error:
            if not lenient:
                raise
            left_out.append(f"{name} is left out of the chain of CNI plugins: {error}")
        else:
            chain[name] = speaks
    return tuple(chain), highest(supported, chain.values()), tuple(left_out)


def bring(where: Directories, source: Path) -> list[str]:
    """Copies the plugins that a host lacks, and tells their names; what is there stays as it is. Raises HostError."""
    brought = []
    with _explained():
        where.binaries.mkdir(parents=True, exist_ok=True)
        for name in BROUGHT:
            if (source / name).exists() and not (where.binaries / name).exists():
                _put(where.binaries / name, (source / name).read_bytes(), 0o755)
                brought.append(name)
    return brought


def uninstall(where: Directories) -> list[Path]:
    """What was removed or given back."""
    done = []
    with _explained():
        for path in (where.conflist, where.plugin):
            if path.exists():
                path.unlink()
                done.append(path)
        for path in sorted(where.configurations.glob(f"*{ASIDE}")):
            before = path.with_name(path.name.removesuffix(ASIDE))
            if not before.exists():  # else its owner has written it anew
                done.append(path.rename(before))
    return done


def versions(plugin: Path) -> tuple[str, ...]:
    """What a plugin says it speaks. Raises HostError."""
    environment = {"CNI_COMMAND": "VERSION", "PATH": os.environ.get("PATH", os.defpath)}
    try:
        said = subprocess.run(
            [plugin], input='{"cniVersion":"0.4.0"}', capture_output=True, text=True, timeout=VERSION_SECONDS,
            env=environment, check=True,
        ).stdout  # fmt: skip
        return tuple(json.loads(said)["supportedVersions"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        fix = "install containernetworking-plugins again, or take it away"
        raise HostError(f"{plugin} does not say which versions it speaks: {error}", fix) from None


def highest(supported: tuple[str, ...], others: Iterable[tuple[str, ...]]) -> str:
    """The newest that all speak. Raises HostError."""
    common = set(supported).intersection(*others)
    found = [version for version in supported if version in common]
    if not found:
        raise HostError("the chained plugins have no version in common with ours", "install newer ones")
    return found[-1]


def _delegates_to_us(path: Path) -> bool:
    """What cannot be read is somebody's own: a runtime may fail over it."""
    try:
        with path.open() as file:
            found = json.loads(file.read(CONFIGURATION_BYTES))
        plugins = found.get("plugins", [found])
        delegating = [plugin for plugin in plugins if plugin.get("type") in DELEGATING]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False
    told = [plugin["delegates"] for plugin in delegating if plugin.get("delegates")]
    return bool(delegating) and (not told or PLUGIN in json.dumps(told))


def _run_by_ours(script: bytes) -> bytes:
    """By the interpreter that runs this program, with the script's own options."""
    first, _, rest = script.partition(b"\n")
    _, _, options = first.partition(b" ")
    return b"#!%s %s\n%s" % (os.fsencode(os.path.realpath(sys.executable)), options, rest)


def _put(path: Path, data: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _set_aside(path: Path) -> Path:
    return path.rename(path.with_name(path.name + ASIDE))


@contextmanager
def _explained() -> Iterator[None]:
    """What the file system refuses, in words."""
    try:
        yield
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}", _advice(error)) from None


def _advice(error: OSError) -> str:
    """Root without CAP_DAC_OVERRIDE may write where any other user may: not into what is somebody else's."""
    if error.errno == errno.EACCES and os.geteuid() == 0:
        return f"chown root {Path(error.filename).parent}, or give the container DAC_OVERRIDE"
    return "run as root, or choose other directories"
