"""The cluster's Node objects: whom to dial, which address of ours they name, and who is a member at all.

Law: gossip finds everybody once one is found, so a node dials a few: those that come first in an order of its own, by
chance and the same in each life. While none of them answers it goes on to others. What is announced of our own node
(its address, annotations) is a wish that the operator's own configuration beats.

Thousands of Nodes tell of their health all the time. So each is compared with what it was before and with nothing else,
and whatever changed in one turn of the loop is told once. While we live this machine is not booted, so an object of our
name that tells of another boot than before is another machine's, and not ours. A node has addresses of both families at
most: ours is IPv4 where there is one, as everywhere; of a peer the family of ours counts.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from ipaddress import ip_address
from typing import Final, NamedTuple

from tunrouter.agent.kubernetes.presence import CONDITION, REASON
from tunrouter.core import leases
from tunrouter.edge.kube.objects import Node
from tunrouter.edge.kube.reflector import Key

DIALLED: Final = 16
INTERNAL: Final = "InternalIP"
EXTERNAL: Final = "ExternalIP"


class Member(NamedTuple):
    """What matters here of a Node object."""

    uid: str
    addresses: tuple[str, ...]
    """Those that the cluster itself uses: InternalIPs, else ExternalIPs."""
    pod_cidr: str
    served: bool
    """It says that this network is, or was, there."""

    def address(self, like: str) -> str:
        """The first of the family of `like`, else the first of all; empty without any."""
        same = (each for each in self.addresses if (":" in each) == (":" in like))
        return next(same, self.addresses[0] if self.addresses else "")


class Members:
    def __init__(self, name: str, boot: str = "") -> None:
        """`boot`: what this machine's kernel says; a kubelet in a container of its own may be told something else."""
        self.name = name
        self._boots = {boot}
        self.changed_at_all: Callable[[], None] = lambda: None
        """Is called after anything changed of which this is told: who, where, and our own object."""
        self.own: Node | None = None
        """Our own object, as new as can be."""
        self.address = ""
        """Ours; empty if the Node object has none."""
        self._members: dict[str, Member] = {}
        self._uids: set[str] = set()
        self._order: list[tuple[bytes, str]] = []
        """Names of the others that have an address, in the order in which they are dialled."""
        self._from = 0
        """The first of the order that is dialled."""
        self._telling = False

    # --- what the reflector tells ------------------------------------------------------------------------------------
    def replaced(self, objects: Mapping[Key, Node], /) -> None:
        for node in objects.values():
            self.changed(node)
        self._tell_soon()

    def changed(self, thing: Node, /) -> None:
        name = thing.metadata.name
        before, now = self._members.get(name), _member(thing)
        if name == self.name:
            self._on_own(thing)
        if now == before:
            return
        self._forget(name)
        self._members[name] = now
        self._uids.add(now.uid)
        if now.addresses and name != self.name:
            insort(self._order, (self._place(name), name))
        self._tell_soon()

    def gone(self, thing: Node, /) -> None:
        name = thing.metadata.name
        if name == self.name:
            self._on_own(None)
        self._forget(name)
        self._tell_soon()

    def _on_own(self, own: Node | None) -> None:
        boot = own.status.node_info.boot_id if own is not None else ""
        if self.own is None and len(self._boots) == 1:
            self._boots.add(boot)
        if boot and boot not in self._boots:
            own = None
        before, self.own = self.own, own
        self.address = _member(own).address("") if own is not None else ""
        said = [one.metadata.annotations if one is not None else {} for one in (before, own)]
        if said[0] != said[1]:
            self._tell_soon()

    def _forget(self, name: str) -> None:
        before = self._members.pop(name, None)
        if before is None:
            return
        self._uids.discard(before.uid)
        here = (self._place(name), name)
        at = bisect_left(self._order, here)
        if self._order[at : at + 1] == [here]:
            del self._order[at]

    def _tell_soon(self) -> None:
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        self.changed_at_all()

    # --- what is known -----------------------------------------------------------------------------------------------
    @property
    def news(self) -> leases.Members:
        own = self.own.metadata.uid if self.own is not None else ""
        served = frozenset(member.uid for member in self._members.values() if member.served)
        return leases.Members(own, frozenset(self._uids), served)

    @property
    def pod_cidrs(self) -> Mapping[str, str]:
        return {name: member.pod_cidr for name, member in self._members.items() if member.pod_cidr}

    @property
    def peers(self) -> tuple[str, ...]:
        """Addresses of those that are dialled."""
        found: dict[str, None] = {}
        for number in range(len(self._order)):
            _, name = self._order[(self._from + number) % len(self._order)]
            address = self._members[name].address(self.address)
            if address != self.address:
                found[address] = None
            if len(found) == DIALLED:
                break
        return tuple(found)

    def dial_others(self) -> None:
        """None of those has answered."""
        others = len(self._order)
        self._from = (self._from + DIALLED) % others if others > DIALLED else 0

    def _place(self, name: str) -> bytes:
        return blake2b(f"{self.name}\0{name}".encode(), digest_size=8).digest()


def _member(node: Node) -> Member:
    told = node.status.addresses
    found = _usable(each.address for each in told if each.type == INTERNAL)
    found = found or _usable(each.address for each in told if each.type == EXTERNAL)
    served = any(one.type == CONDITION and one.reason == REASON for one in node.status.conditions)
    return Member(node.metadata.uid, found, node.spec.pod_cidr, served)


def _usable(addresses: Iterable[str]) -> tuple[str, ...]:
    """IPv4 first, then as they were told."""
    found = []
    for address in addresses:
        try:
            found.append((ip_address(address).version, address))
        except ValueError:
            continue
    return tuple(address for _, address in sorted(found, key=lambda each: each[0]))
