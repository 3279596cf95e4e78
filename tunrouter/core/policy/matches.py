"""One policy's rules as matches: each peer with each of the ports, spans of numbers merged.

Law: a rule permits the product of its peers and ports. Blocks of one rule are one set of spans a family, the exceptions
taken out; ports of one protocol are one set of spans; named ports stay names, for each destination has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from tunrouter.core.policy.model import Block, Direction, Network, Peers, Ports, Rule
from tunrouter.core.policy.ruleset import Blocks, Group, Match, Named, Numbers, Span, union, without


def matches(namespace: str, direction: Direction, rules: Iterable[Rule]) -> tuple[Match, ...]:
    """Each once, in the order of the rules."""
    found = (
        Match(peer, ports)
        for rule in rules
        for peer, ports in product(_peers(namespace, rule.peers), _ports(direction, rule.ports))
    )
    return tuple(dict.fromkeys(found))


def _peers(namespace: str, peers: tuple[Peers | Block, ...] | None) -> Iterator[Group | Blocks | None]:
    if peers is None:
        yield None
        return
    spans: dict[int, list[Span]] = {4: [], 6: []}
    for peer in peers:
        if isinstance(peer, Peers):
            yield Group(peer.pods, peer.namespaces, namespace if peer.namespaces is None else "")
        else:
            spans[peer.network.version] += without(_span(peer.network), [_span(gap) for gap in peer.without])
    for version in (4, 6):
        if spans[version]:
            yield Blocks(version, union(spans[version]))


def _span(network: Network) -> Span:
    return int(network.network_address), int(network.broadcast_address)


def _ports(direction: Direction, ports: tuple[Ports, ...] | None) -> Iterator[Numbers | Named | None]:
    if ports is None:
        yield None
        return
    for protocol in dict.fromkeys(port.protocol for port in ports):
        of = [port for port in ports if port.protocol == protocol]
        if spans := union([(port.first, port.last) for port in of if not port.name]):
            yield Numbers(protocol, spans)
        for name in dict.fromkeys(port.name for port in of if port.name):
            yield Named(protocol, name, direction)
