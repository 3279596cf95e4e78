"""What one node enforces, as a value: which pods it has, which policies isolate each, and what those permit.

    a packet ──> pods[source]: egress policies ──> pods[destination]: ingress policies ──> passes

Law: a pod that policies isolate in a direction passes what one of them permits, and nothing else; who is not isolated
passes everything; whoever talks to itself passes always. Equal selectors are one group, however many rules name it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple

from tunrouter.core.policy.model import Address, Direction, Key, Protocol, Selector

Span = tuple[int, int]
"""From and to, both included."""


class Group(NamedTuple):
    """Pods that a rule names, by what selects them."""

    pods: Selector
    namespaces: Selector | None
    namespace: str
    """Whose pods, if no selector of namespaces says so; else empty."""


class Blocks(NamedTuple):
    """Addresses as numbers: disjoint spans in ascending order."""

    version: Literal[4, 6]
    spans: tuple[Span, ...]


class Numbers(NamedTuple):
    """Ports of a protocol: disjoint spans in ascending order."""

    protocol: Protocol
    spans: tuple[Span, ...]


class Named(NamedTuple):
    """What containers call a port, by the pods that have one of the name."""

    protocol: Protocol
    name: str
    direction: Direction
    """For ingress only this node's pods are listed: nobody else is a destination here."""


class Match(NamedTuple):
    """Permits what both halves match; None matches everything."""

    peer: Group | Blocks | None
    ports: Numbers | Named | None


class Isolation(NamedTuple):
    """The policies that isolate a pod; None in a direction in which none does, empty where nothing is permitted."""

    egress: tuple[Key, ...] | None
    ingress: tuple[Key, ...] | None

    def towards(self, direction: Direction) -> tuple[Key, ...] | None:
        return self.ingress if direction == "ingress" else self.egress


OPEN: Final = Isolation(None, None)
CLOSED: Final = Isolation((), ())
Endpoint = tuple[Address, int]


class Ruleset(NamedTuple):
    """Equal values enforce the same. Parts that did not change are the same objects as before."""

    pods: Mapping[Address, Isolation]
    """Of this node. Traffic of other addresses on its bridge is dropped, but where another node's rule set has them."""
    permits: Mapping[tuple[Direction, Key], tuple[Match, ...]]
    """Of each policy that isolates any of these pods."""
    groups: Mapping[Group, frozenset[Address]]
    """Of the whole cluster: all that a match names."""
    named: Mapping[Named, frozenset[Endpoint]]

    def passes(self, source: Address, destination: Address, protocol: str, port: int) -> bool:
        """Whether this node lets that begin; `protocol` is any word where it has no ports."""
        if source == destination:
            return True
        return all(
            self.permitted(direction, source, destination, protocol, port) is not None
            for direction in self._isolated(source, destination)
        )

    def _isolated(self, source: Address, destination: Address) -> Iterator[Direction]:
        if self.pods.get(source, OPEN).egress is not None:
            yield "egress"
        if self.pods.get(destination, OPEN).ingress is not None:
            yield "ingress"

    def permitted(
        self, direction: Direction, source: Address, destination: Address, protocol: str, port: int
    ) -> Key | None:
        """The first policy that permits it to the pod which is isolated in this direction."""
        pod, peer = (destination, source) if direction == "ingress" else (source, destination)
        for key in self.pods[pod].towards(direction) or ():
            for match in self.permits[direction, key]:
                if self._is_peer(match.peer, peer) and self._is_port(match.ports, destination, protocol, port):
                    return key
        return None

    def _is_peer(self, peer: Group | Blocks | None, address: Address) -> bool:
        match peer:
            case None:
                return True
            case Blocks(version, spans):
                return version == address.version and _within(spans, int(address))
            case _:
                return address in self.groups[peer]

    def _is_port(self, ports: Numbers | Named | None, destination: Address, protocol: str, port: int) -> bool:
        match ports:
            case None:
                return True
            case Numbers(of, spans):
                return of == protocol and _within(spans, port)
            case _:
                return ports.protocol == protocol and (destination, port) in self.named[ports]


EMPTY: Final = Ruleset({}, {}, {}, {})


def union(spans: list[Span]) -> tuple[Span, ...]:
    """Disjoint and in ascending order; neighbours become one."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def without(span: Span, gaps: list[Span]) -> Iterator[Span]:
    """What is left of it."""
    first, last = span
    for begin, end in union(gaps):
        if first < begin:
            yield first, min(begin - 1, last)
        first = max(first, end + 1)
        if first > last:
            return
    yield first, last


def _within(spans: tuple[Span, ...], number: int) -> bool:
    at = bisect_right(spans, (number, 1 << 128)) - 1
    return at >= 0 and spans[at][0] <= number <= spans[at][1]


def address_of(number: int, version: Literal[4, 6]) -> Address:
    return ip_address(number.to_bytes(4 if version == 4 else 16, "big"))
