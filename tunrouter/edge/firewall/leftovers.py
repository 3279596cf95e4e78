"""Chains and rules of iptables that Weave Net left behind, and the commands that take them away. Nothing is changed.

Law: its chains are known by their names (`WEAVE`, `WEAVE-…`). Beside those it put rules for its bridge into others'; of
them only jumps to its chains, one with its comment, and the log and the drop that end its network policy are taken for
its own: an accept for the bridge may be the administrator's, and hurts nobody.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final, NamedTuple

from tunrouter.edge.firewall import legacy, nftables
from tunrouter.edge.firewall.command import run

PREFIX: Final = "WEAVE"
SAID: Final = "Block non-local access to Weave Net control port"
"""The comment of one that it put before its control port."""
QUOTE: Final = "\\'"
"""As iptables-save writes an apostrophe, which stands between double quotes."""
LOG_GROUP: Final = "86"
"""Of NFLOG, where its network policy told of what it dropped."""


class Remains(NamedTuple):
    """Of one backend."""

    backend: str
    chains: tuple[str, ...]
    reached: bool
    """Packets still come there."""
    commands: tuple[str, ...]


def remains(bridge: str) -> list[Remains]:
    """Of each IPv4 backend in use; `bridge` is its bridge's name. Raises HostError."""
    backends = ["iptables-nft"] if "ip" in nftables.Overview().iptables else []
    backends += ["iptables-legacy"] if legacy.loaded(4) else []
    return [found for backend in backends if (found := _read(backend, bridge, run([f"{backend}-save"]))).chains]


def _read(backend: str, bridge: str, text: str) -> Remains:
    table, chains, rules, reached = "", [], [], False
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(f":{PREFIX}") and _is_its(line[1:].split()[0]):
            chains.append((table, line[1:].split()[0]))
        elif line.startswith("-A ") and _is_left(words := shlex.split(line.replace(QUOTE, "'")), bridge):
            rules.append((table, words))
            reached = True
    commands = [*_deletions(backend, rules), *_removals(backend, chains)]
    return Remains(backend, tuple(name for _, name in chains), reached, tuple(commands))


def _is_its(chain: str) -> bool:
    return chain == PREFIX or chain.startswith(f"{PREFIX}-")


def _is_left(words: list[str], bridge: str) -> bool:
    """A rule of its own in a chain that is not."""
    target = words[words.index("-j") + 1] if "-j" in words[:-1] else ""
    if _is_its(words[1]):
        return False
    if _is_its(target) or SAID in words:
        return True
    to_pods = words[2:4] == ["-o", bridge]
    return to_pods and (words[4:] == ["-j", "DROP"] or (target == "NFLOG" and LOG_GROUP in words))


def _deletions(backend: str, rules: list[tuple[str, list[str]]]) -> Iterator[str]:
    for table, (_, *rest) in rules:
        yield shlex.join([backend, "-t", table, "-D", *rest])


def _removals(backend: str, chains: list[tuple[str, str]]) -> Iterator[str]:
    """Emptied before they are deleted: they jump to each other."""
    for option in ("-F", "-X"):
        yield from (f"{backend} -t {table} {option} {name}" for table, name in chains)
