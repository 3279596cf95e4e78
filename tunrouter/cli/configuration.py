"""`tunrouter config check` and `config show`: what `up` would run with, before it does."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import typer

from tunrouter.cli.settings import one_of, settings
from tunrouter.cli.text import printable
from tunrouter.config import Config, Resolved
from tunrouter.config.founding import describe

SCHEMA = 1


def check(flags: Mapping[str, object]) -> None:
    resolved = settings(flags, again=True)
    _refuse_mistyped(resolved.config)
    file = printable(str(resolved.file)) if resolved.file else "no file"
    encryption = "encrypted" if resolved.config.secrets else "NOT encrypted: no password is set"
    for remark in resolved.remarks:
        typer.echo(remark, err=True)
    typer.echo(f"config: ok ({file}; {encryption}; {printable(describe(resolved.config))})")


def _refuse_mistyped(config: Config) -> None:
    """A generated secret has a checksum; a password cannot be mistyped as far as we can see, and is slow to derive."""
    from tunrouter.core import keys

    for secret in config.secrets:
        if secret.lower().startswith(keys.PREFIX):
            keys.derive_psk(secret, config.network)


def show(flags: Mapping[str, object], output: str) -> None:
    one_of("output", output, ("text", "wide", "json"))
    resolved = settings(flags, again=True)
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, "config": resolved.config.masked()}))
    else:
        typer.echo("\n".join(_lines(resolved)))


def _lines(resolved: Resolved) -> list[str]:
    """As TOML, each with its origin as a comment."""
    shown = {name: _toml(value) for name, value in resolved.config.masked().items()}
    shown["password"] = shown.pop("secrets")
    pairs = [(f"{name} = {value}", resolved.origin(_ORIGINS.get(name, name)).where) for name, value in shown.items()]
    width = max(len(pair) for pair, _ in pairs)
    return [f"{pair:<{width}}  # {printable(where)}" for pair, where in pairs]


_ORIGINS = {"password": "secrets"}


def _toml(value: object) -> str:
    """TOML writes text, numbers, booleans and lists of them as JSON does."""
    return msgspec.json.encode(value).decode()
