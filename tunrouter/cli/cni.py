"""`tunrouter cni`: makes container runtimes ask this host's agent for their pods' network, and undoes that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import typer

from tunrouter.cli.settings import one_of, settings
from tunrouter.cni.request import VERSIONS, is_id
from tunrouter.config import Config
from tunrouter.edge import runtimes
from tunrouter.edge.runtimes import Directories
from tunrouter.errors import ConfigError, HostError

SCHEMA = 1


def install(flags: Mapping[str, object], name: str, exclusive: bool, output: str) -> None:
    one_of("output", output, ("text", "json"))
    if not is_id(name):
        raise ConfigError(f"--name {name!r} is no network's", "use at most 64 letters, digits, . _ and -")
    config = _as_root(flags, "install")
    keys = {"socket": str(config.socket), "notes": str(config.notes)}
    where = directories(config)
    done = runtimes.install(where, name, keys, VERSIONS, exclusive=exclusive)
    if output == "json":
        typer.echo(msgspec.json.encode({
            "schema": SCHEMA, "plugin": str(done.plugin), "compiled": done.compiled,
            "conflist": str(done.conflist), "cniVersion": done.version,
            "chain": done.chain, "aside": [str(path) for path in done.aside],
        }))  # fmt: skip
    else:
        for path in done.aside:
            typer.echo(f"set aside as {path}")
        typer.echo(f"{done.plugin} ({'compiled' if done.compiled else 'in Python, which takes longer to start'})")
        typer.echo(f"{done.conflist} (cniVersion {done.version}; after ours: {', '.join(done.chain) or 'nothing'})")
        if "portmap" not in done.chain:
            typer.echo(f"portmap is not in {where.binaries}: host ports do not work", err=True)
    if why := where.hindrance():
        raise HostError(why, "remove it, or install with --cni-exclusive")


def uninstall(flags: Mapping[str, object]) -> None:
    config = _as_root(flags, "uninstall")
    done = [str(path) for path in runtimes.uninstall(directories(config))]
    for line in done or ["nothing to remove"]:
        typer.echo(line)


def directories(config: Config) -> Directories:
    return Directories(Path(config.cni_bin_dir), Path(config.cni_conf_dir))


def _as_root(flags: Mapping[str, object], verb: str) -> Config:
    if os.geteuid() != 0:
        raise HostError(f"cni {verb} needs root", f"run as root: sudo tunrouter cni {verb}")
    return settings(flags).config
