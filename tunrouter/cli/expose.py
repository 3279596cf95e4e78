"""`tunrouter expose` and `tunrouter hide`: addresses of this host itself in the pods' network.

Law: as Weave's `expose`, it prints the addresses; what is exposed or hidden already is so again without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import typer

from tunrouter.cli.patience import patience
from tunrouter.cli.settings import agent, ipv4, one_of
from tunrouter.edge.api import ExposeCall, Exposed, HideCall

SCHEMA: Final = 1


def expose(addresses: Sequence[str], output: str, socket: str | None) -> None:
    one_of("output", output, ("text", "json"))
    call = ExposeCall(_checked(addresses))
    with patience("waiting for an address"):
        exposed = agent(socket).ask(call, Exposed)
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, "addresses": exposed.addresses}))
    else:
        typer.echo("\n".join(exposed.addresses))


def hide(addresses: Sequence[str], socket: str | None) -> None:
    agent(socket).ask(HideCall(_checked(addresses)), object)


def _checked(addresses: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ipv4("address", address) for address in addresses))
