"""What operators and containers ask a node about addresses and blocks, as values.

Law: every request has a ticket, and under it there is exactly one `Answer`: what was asked for, or a `Refusal`. To ask
again after a restart does no harm.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import NamedTuple


class Allocate(NamedTuple):
    """An address for an interface of a container: the one it has, or a new one. Answered with an `IPv4Address`."""

    ticket: int
    container: str
    interface: str
    wanted: IPv4Address | None = None
    """This one and no other."""
    pod: str = ""
    """What the container is for: another one for the same gets the same address, if the first has released it."""


class Release(NamedTuple):
    """Of one interface, or of all. Answered with the addresses, none if it has none."""

    ticket: int
    container: str
    interface: str | None = None


class Claim(NamedTuple):
    """The address was found in use there. Answered with whether it is the interface's now."""

    ticket: int
    container: str
    interface: str
    address: IPv4Address


class Remove(NamedTuple):
    """Takes the blocks of nodes that are gone for good. Answered with a `Removed` of each."""

    ticket: int
    nodes: tuple[int, ...]
    force: bool = False
    """Also of a node that may be alive where we cannot see it."""
    dry_run: bool = False


class Leave(NamedTuple):
    """Hands back all blocks and leaves the cluster. Answered with `Left`."""

    ticket: int
    force: bool = False
    """Although addresses are in use."""


class SetElectors(NamedTuple):
    """Answered with the nodes, once it is on its way."""

    ticket: int
    nodes: tuple[int, ...]


Request = Allocate | Release | Claim | Remove | Leave | SetElectors
