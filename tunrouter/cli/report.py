"""`tunrouter report`: everything at once, for scripts that know Weave's and for who helps.

Law: JSON, always. `-f` takes a path through it, and of Go's templates what is no more than paths: `{{.Router.Name}}`
and `{{json .Router.Peers}}`, with text around them. Whatever else a template says is refused, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
import typer

from tunrouter.cli import weave
from tunrouter.cli.settings import agent, one_of, settings
from tunrouter.cli.text import printable
from tunrouter.core.status import Snapshot
from tunrouter.edge.api import StatusCall
from tunrouter.errors import AgentAbsentError, ConfigError

_ACTION: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PATH: Final = re.compile(r"\s*(?P<json>json\s+)?\.(?P<path>[\w.]*)\s*")
JQ: Final = "for more than that: tunrouter report | jq"


def run(template: str | None, output: str, flags: Mapping[str, object], socket: str | None) -> None:
    one_of("output", output, ("text", "json"))
    try:
        found = _live(socket)
    except AgentAbsentError:
        if socket is not None:
            raise
        found = _of_this_host(flags)
    tree = msgspec.to_builtins(found)
    if template is None:
        typer.echo(_json(tree, indent=2 if output == "text" else -1))
    elif "{{" in template:
        typer.echo(_ACTION.sub(lambda action: _action(tree, action[1]), template))
    else:
        typer.echo(_shown(_at(tree, template.removeprefix(".")), indent=2 if output == "text" else -1))


def _live(socket: str | None) -> weave.Tree:
    return weave.report(agent(socket).ask(StatusCall(), Snapshot))


def _of_this_host(flags: Mapping[str, object]) -> weave.Tree:
    """Of the agent where the configuration has it, or what it left on disk."""
    config = settings(flags).config
    try:
        return _live(str(config.socket))
    except AgentAbsentError:
        from tunrouter.cli import stored

        found = stored.report(config)
        typer.echo(f"tunrouter: {stored.NO_AGENT} in {printable(config.state_dir)}", err=True)
        return found


def _action(tree: object, text: str) -> str:
    parsed = _PATH.fullmatch(text)
    if parsed is None:
        known = "templates are {{.Some.Path}} and {{json .Some.Path}}"
        raise ConfigError(f"-f: {{{{{text}}}}} is not known, {known}", JQ)
    value = _at(tree, parsed["path"])
    return _json(value, indent=-1) if parsed["json"] else _shown(value, indent=-1)


def _at(tree: object, path: str) -> object:
    """What a dotted path leads to; in a list a number counts from 0. Raises ConfigError."""
    for step in filter(None, path.split(".")):
        if isinstance(tree, dict) and step in tree:
            tree = tree[step]
        elif isinstance(tree, list) and step.isascii() and step.isdigit() and int(step) < len(tree):
            tree = tree[int(step)]
        else:
            raise ConfigError(f"-f: there is no {step!r} in {path!r}", _choice(tree))
    return tree


def _choice(tree: object) -> str:
    if isinstance(tree, dict):
        return f"choose one of {', '.join(map(str, tree))}"
    if isinstance(tree, list) and tree:
        return f"give a number from 0 to {len(tree) - 1}"
    return "nothing is below it"


def _shown(value: object, indent: int) -> str:
    """Text as it is, but harmless; all else as JSON."""
    return printable(value) if isinstance(value, str) else _json(value, indent)


def _json(value: object, indent: int) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
