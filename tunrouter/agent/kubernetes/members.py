"""The cluster's Node objects: whom to dial, which address of ours they name, and who is a member at all.

Law: gossip finds everybody once one is found, so a node dials a few: those that come first in an order of its own, by
chance and the same in each life. While none of them answers it goes on to others. What is announced of our own node
(its address, annotations) is a wish that the operator's own configuration beats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final

from tunrouter.core import leases
from tunrouter.edge.kube.objects import Node
from tunrouter.edge.kube.reflector import Key

DIALLED: Final = 16
INTERNAL: Final = "InternalIP"
EXTERNAL: Final = "ExternalIP"


class Members:
    """`changed` is called after anything changed of which this is told: who, where, and our own object."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.changed_at_all: Callable[[], None] = lambda: None
        self.own: Node | None = None
        self._nodes: dict[str, Node] = {}
        self._told: tuple[object, ...] = ()
        self._from = 0
        """The first of the order that is dialled."""

    # --- what the reflector tells ------------------------------------------------------------------------------------
    def replaced(self, objects: Mapping[Key, Node], /) -> None:
        self._nodes = {node.metadata.name: node for node in objects.values()}
        self._look()

    def changed(self, thing: Node, /) -> None:
        self._nodes[thing.metadata.name] = thing
        self._look()

    def gone(self, thing: Node, /) -> None:
        self._nodes.pop(thing.metadata.name, None)
        self._look()

    def _look(self) -> None:
        """Nodes tell of their health all the time: only what matters here is news."""
        self.own = own = self._nodes.get(self.name)
        told = (
            own.metadata.uid if own is not None else "",
            own.metadata.annotations if own is not None else {},
            own.status.conditions if own is not None else (),
            {name: (node.metadata.uid, _address(node)) for name, node in self._nodes.items()},
        )
        if told != self._told:
            self._told = told
            self.changed_at_all()

    # --- what is known -----------------------------------------------------------------------------------------------
    @property
    def news(self) -> leases.Members:
        own = self.own.metadata.uid if self.own is not None else ""
        return leases.Members(own, frozenset(node.metadata.uid for node in self._nodes.values()))

    @property
    def address(self) -> str:
        """Ours; empty if the Node object has none."""
        return _address(self.own) if self.own is not None else ""

    @property
    def pod_cidrs(self) -> Mapping[str, str]:
        return {name: node.spec.pod_cidr for name, node in self._nodes.items() if node.spec.pod_cidr}

    @property
    def peers(self) -> tuple[str, ...]:
        """Addresses of those that are dialled."""
        others = sorted((self._order(node), _address(node)) for node in self._nodes.values() if self._is_other(node))
        found = [address for _, address in others]
        return tuple(dict.fromkeys((found + found)[self._from : self._from + min(DIALLED, len(found))]))

    def dial_others(self) -> None:
        """None of those has answered."""
        others = sum(map(self._is_other, self._nodes.values()))
        self._from = (self._from + DIALLED) % others if others > DIALLED else 0

    def _is_other(self, node: Node) -> bool:
        return node.metadata.name != self.name and _address(node) not in ("", self.address)

    def _order(self, node: Node) -> bytes:
        return blake2b(f"{self.name}\0{node.metadata.name}".encode(), digest_size=8).digest()


def _address(node: Node) -> str:
    """The one that the cluster itself uses: the first InternalIP, else the first ExternalIP."""
    for kind in (INTERNAL, EXTERNAL):
        for address in node.status.addresses:
            if address.type == kind and address.address:
                return address.address
    return ""
