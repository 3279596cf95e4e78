"""A rule set as the text of one nftables transaction: the whole, or what leads from one rule set to another.

    forward, input ── from the bridge ──> leaving ──> map egress ──> egress-… (who is isolated alike) ──> policy's chain
    forward ───────── to the bridge ───> arriving ──> map ingress ─> ingress-…                       ──> policy's chain

Law: each text is one transaction, so the kernel has the rules before it or those after it. What is permitted once is
permitted to the end: connections are looked at when they begin, after a Service's address was translated and before
anything is masqueraded. Egress is asked first, in a base chain of its own, so that its accept does not answer for
ingress. Addresses behind the bridge that no map has are closed. There is room for tiers that come before or after
policies (AdminNetworkPolicy): a chain of theirs is entered from `leaving` and `arriving`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, Final, Literal, NamedTuple

from tunrouter.core.policy.model import DIRECTIONS, LAST_PORT, Address, Direction, Key, Selector
from tunrouter.core.policy.ruleset import (
    EMPTY,
    Blocks,
    Endpoint,
    Group,
    Match,
    Named,
    Numbers,
    Ruleset,
    Span,
    address_of,
)

TABLE: Final = "tunrouter-policy"
FAMILY: Final = "inet"
AT_ONCE: Final = 2000
"""Elements of one command."""
COMMENT: Final = 120
FEW: Final = 4
"""Spans of addresses, or of ports, that a match has without a set for them."""
ENDED_SECONDS: Final = 10
"""No answer is on its way for longer."""
LOG_GROUP: Final = 86
"""Of NFLOG, as Weave's."""
LOGGED: Final = "limit rate 200/second burst 400 packets"
"""A flood of refused packets must not become a flood of messages."""
SNAPLEN: Final = 96
_IN: Final = f"{FAMILY} {TABLE}"
_IP: Final = {4: "ip", 6: "ip6"}
_TYPE: Final = {4: "ipv4_addr", 6: "ipv6_addr"}
_LAST: Final = {4: (1 << 32) - 1, 6: (1 << 128) - 1}

Version = Literal[4, 6]
VERSIONS: Final[tuple[Version, Version]] = (4, 6)


class Answer(NamedTuple):
    """The packets of a connection's other end."""

    source: Address
    destination: Address
    protocol: int
    source_port: int
    destination_port: int


class Frame(NamedTuple):
    """What does not follow from policies."""

    bridge: str
    log: bool = True
    """Whether the kernel can tell of what is dropped."""


def whole(after: Ruleset, frame: Frame) -> str:
    """Replaces the table, whatever is in it."""
    return _skeleton(frame) + _changes(EMPTY, after)


def difference(before: Ruleset, after: Ruleset, frame: Frame) -> str:
    """Empty if there is none. The kernel must have what `before` says."""
    if _versions(before) != _versions(after):
        return whole(after, frame)
    return _changes(before, after)


def refusing(answers: Collection[Answer]) -> str:
    """For `ENDED_SECONDS` these begin nothing."""
    lines: list[str] = []
    for version in VERSIONS:
        some = (" . ".join(map(str, one)) for one in answers if one.source.version == version)
        lines += _elements("add", f"ended{version}", some)
    return "".join(f"{line}\n" for line in lines)


def _versions(ruleset: Ruleset) -> frozenset[int]:
    """A flow that is looked at has one end here, so other families need no rules."""
    return frozenset(address.version for address in ruleset.pods) or frozenset({4})


# --- what is always there --------------------------------------------------------------------------------------------
def _skeleton(frame: Frame) -> str:
    # `table` before `delete table`: the deletion must not fail where there is none yet.
    return f"""
table {_IN}
delete table {_IN}
table {_IN} {{{_empty()}{"".join(_dropped_to(direction, frame) for direction in DIRECTIONS)}
  chain leaving {{
    ct state established accept
{_errors()}
{_looked_up("egress", "saddr", "ingress")}
  }}
  chain arriving {{
    ct state established,related accept
{_looked_up("ingress", "daddr", "egress")}
  }}
  chain forward-egress {{
    type filter hook forward priority filter; policy accept;
    iifname "{frame.bridge}" jump leaving
  }}
  chain input-egress {{
    type filter hook input priority filter; policy accept;
    iifname "{frame.bridge}" jump leaving
  }}
  chain forward-ingress {{
    type filter hook forward priority filter + 1; policy accept;
    oifname "{frame.bridge}" jump arriving
  }}
}}
"""


def _empty() -> str:
    """The maps and sets of this node's pods, and of answers that are to begin nothing."""
    of_directions = (
        f"""
  map {direction}{version} {{ type {_TYPE[version]} : verdict; }}
  set isolated-{direction}{version} {{ type {_TYPE[version]}; }}"""
        for direction in DIRECTIONS
        for version in VERSIONS
    )
    of_pairs = (
        f"""
  set itself{version} {{ type {_TYPE[version]} . {_TYPE[version]}; }}
  set ended{version} {{
    type {_TYPE[version]} . {_TYPE[version]} . inet_proto . inet_service . inet_service
    timeout {ENDED_SECONDS}s
  }}"""
        for version in VERSIONS
    )
    return "".join((*of_directions, *of_pairs))


def _dropped_to(direction: Direction, frame: Frame) -> str:
    log = f'{LOGGED} log prefix "{direction}" group {LOG_GROUP} snaplen {SNAPLEN}' if frame.log else ""
    return f"""
  chain dropped-{direction} {{
    {log}
    drop
  }}"""


def _errors() -> str:
    """A pod routes for nobody: an ICMP error of it is about a connection of its own, or is forged.

    It is invalid where the connection is not known at all: the other end's node may know it, and let the error in.
    """
    lines = [
        f"    ct state related {ip} saddr . ct {way} {ip} saddr @itself{version} accept"
        for version, ip in _IP.items()
        for way in ("original", "reply")
    ]
    return "\n".join([*lines, "    meta l4proto { icmp, icmpv6 } ct state invalid,related drop"])


def _looked_up(direction: Direction, end: str, other: Direction) -> str:
    lines = []
    for version in VERSIONS:
        ip = _IP[version]
        lines += [
            f"    {ip} saddr . {ip} daddr @itself{version} accept",
            # The answer to a packet of a connection that was ended meanwhile must not begin one.
            f"    {ip} saddr . {ip} daddr . meta l4proto . th sport . th dport @ended{version} drop",
            # The middle of a connection that is not known: the other direction's policies ended it, and an answer must
            # not make it a new one that goes the other way round.
            f"    tcp flags & (fin | syn | rst | ack) != syn {ip} {end} @isolated-{other}{version} drop",
            f"    {ip} {end} vmap @{direction}{version}",
        ]
    return "\n".join([*lines, f"    goto dropped-{direction}"])


# --- what changes ----------------------------------------------------------------------------------------------------
def _changes(before: Ruleset, after: Ruleset) -> str:
    versions = sorted(_versions(after))
    new, changed, gone = _compared(before.permits, after.permits)
    alike, alike_before = _alike(after), _alike(before)
    lines = [
        *_sets(before.groups, after.groups, versions, _group_name, lambda version: _TYPE[version], str),
        *_sets(
            before.named, after.named, versions, _named_name,
            lambda version: f"{_TYPE[version]} . inet_service", lambda end: f"{end[0]} . {end[1]}",
        ),
        *(_new_policy(*chain) for chain in new),
        *(f"flush chain {_IN} {_policy_name(*chain)}" for chain in changed),
        *(rule for chain in (*new, *changed) for rule in _permitting(chain, after.permits[chain], versions)),
        *(line for one in sorted(alike - alike_before) for line in _isolating(*one)),
        *_verdicts(before, after),
        *(f"delete chain {_IN} {_alike_name(*one)}" for one in sorted(alike_before - alike)),
        *(f"delete chain {_IN} {_policy_name(*chain)}" for chain in gone),
        *_dropped(before.groups, after.groups, versions, _group_name),
        *_dropped(before.named, after.named, versions, _named_name),
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


def _compared(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Keys: new, changed, gone; in order."""
    return (
        sorted(after.keys() - before.keys()),
        sorted(key for key, value in after.items() if key in before and before[key] is not value != before[key]),
        sorted(before.keys() - after.keys()),
    )


def _sets(
    before: Mapping[Any, frozenset[Any]],
    after: Mapping[Any, frozenset[Any]],
    versions: Iterable[int],
    name: Callable[[Any, int], str],
    kind: Callable[[int], str],
    text: Callable[[Any], str],
) -> Iterator[str]:
    for key, members in after.items():
        there = before.get(key)
        if there is members:
            continue
        for version in versions:
            called = name(key, version)
            if there is None:
                yield f"add set {_IN} {called} {{ type {kind(version)}; }}"
            yield from _elements("add", called, map(text, _of(version, members - (there or frozenset()))))
            yield from _elements("delete", called, map(text, _of(version, (there or frozenset()) - members)))


def _of(version: int, members: Iterable[Address] | Iterable[Endpoint]) -> list[Any]:
    """Not in order: there may be many, and the kernel does not mind."""
    return [one for one in members if (one[0] if isinstance(one, tuple) else one).version == version]


def _dropped(
    before: Mapping[Any, Any], after: Mapping[Any, Any], versions: Iterable[int], name: Callable[[Any, int], str]
) -> Iterator[str]:
    for key in before:
        if key not in after:
            for version in versions:
                yield f"delete set {_IN} {name(key, version)}"


def _elements(verb: str, name: str, elements: Iterable[str]) -> Iterator[str]:
    rest = iter(elements)
    while some := list(islice(rest, AT_ONCE)):
        yield f"{verb} element {_IN} {name} {{ {', '.join(some)} }}"


# --- policies --------------------------------------------------------------------------------------------------------
def _new_policy(direction: Direction, key: Key) -> str:
    about = "".join(letter for letter in "/".join(key) if letter.isalnum() or letter in "-./")[:COMMENT]
    return f'add chain {_IN} {_policy_name(direction, key)} {{ comment "{about}"; }}'


def _permitting(chain: tuple[Direction, Key], matches: Iterable[Match], versions: Iterable[int]) -> Iterator[str]:
    direction, _ = chain
    for match in matches:
        if match == Match(None, None):
            yield f"add rule {_IN} {_policy_name(*chain)} accept"
            continue
        for version in versions:
            for peer, port in product(_peer(direction, match.peer, version), _port(match.ports, version)):
                yield f"add rule {_IN} {_policy_name(*chain)} {' '.join(part for part in (peer, port) if part)} accept"


def _peer(direction: Direction, peer: Group | Blocks | None, version: int) -> list[str]:
    """One of them has to hold; none can if there is none of this family."""
    ip, end = _IP[version], "saddr" if direction == "ingress" else "daddr"
    match peer:
        case None:
            return [f"meta nfproto {'ipv4' if version == 4 else 'ipv6'}"]
        case Group():
            return [f"{ip} {end} @{_group_name(peer, version)}"]
        case Blocks(of, _) if of != version:
            return []
        case Blocks(_, ((0, last),)) if last == _LAST[version]:
            return [f"meta nfproto {'ipv4' if version == 4 else 'ipv6'}"]
        case Blocks(of, spans):
            return _spanned(f"{ip} {end}", spans, lambda number: str(address_of(number, of)))


def _port(ports: Numbers | Named | None, version: int) -> list[str]:
    match ports:
        case None:
            return [""]
        case Numbers(protocol, ((0, last),)) if last == LAST_PORT:
            return [f"meta l4proto {protocol.lower()}"]
        case Numbers(protocol, spans):
            return _spanned(f"{protocol.lower()} dport", spans, str)
        case Named(protocol, _, _):
            return [f"{_IP[version]} daddr . {protocol.lower()} dport @{_named_name(ports, version)}"]


def _spanned(what: str, spans: Sequence[Span], text: Callable[[int], str]) -> list[str]:
    """A few are a rule each: a thousand rules with sets of their own take the kernel a hundred times as long."""
    said = [text(first) if first == last else f"{text(first)}-{text(last)}" for first, last in spans]
    return [f"{what} {one}" for one in said] if len(said) <= FEW else [f"{what} {{ {', '.join(said)} }}"]


# --- pods ------------------------------------------------------------------------------------------------------------
def _alike(ruleset: Ruleset) -> set[tuple[Direction, tuple[Key, ...]]]:
    """Policies that isolate a pod together: its like share a chain."""
    return {
        (direction, keys)
        for isolation in set(ruleset.pods.values())
        for direction in DIRECTIONS
        if (keys := isolation.towards(direction))
    }


def _isolating(direction: Direction, keys: tuple[Key, ...]) -> Iterator[str]:
    name = _alike_name(direction, keys)
    yield f"add chain {_IN} {name}"
    for key in keys:
        yield f"add rule {_IN} {name} jump {_policy_name(direction, key)}"
    yield f"add rule {_IN} {name} goto dropped-{direction}"


def _verdicts(before: Ruleset, after: Ruleset) -> Iterator[str]:
    gone = before.pods.keys() - after.pods.keys()
    for version in VERSIONS:
        here = [address for address in after.pods if address.version == version]
        left = [address for address in gone if address.version == version]
        new = [address for address in here if address not in before.pods]
        yield from _elements("delete", f"itself{version}", (f"{address} . {address}" for address in left))
        yield from _elements("add", f"itself{version}", (f"{address} . {address}" for address in new))
        for direction in DIRECTIONS:
            # A map gives an element another verdict by taking it out first.
            was = {
                address: before.pods[address].towards(direction) for address in (*here, *left) if address in before.pods
            }
            now = {address: after.pods[address].towards(direction) for address in here}
            out = [address for address, keys in was.items() if address not in now or now[address] != keys]
            into = [address for address, keys in now.items() if address not in was or was[address] != keys]
            yield from _elements("delete", f"{direction}{version}", map(str, out))
            yield from _elements(
                "add", f"{direction}{version}", (f"{address} : {_verdict(direction, now[address])}" for address in into)
            )
            isolated = f"isolated-{direction}{version}"
            yield from _elements("delete", isolated, (str(address) for address in out if was[address] is not None))
            yield from _elements("add", isolated, (str(address) for address in into if now[address] is not None))


def _verdict(direction: Direction, keys: tuple[Key, ...] | None) -> str:
    if keys is None:
        return "accept"
    return f"goto {_alike_name(direction, keys) if keys else f'dropped-{direction}'}"


# --- names: the same for the same in every process -------------------------------------------------------------------
def _digest(*parts: object) -> str:
    """Of what differs in any way: by `repr`, which no text within it can feign."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def _policy_name(direction: Direction, key: Key) -> str:
    return f"{direction}-policy-{_digest(*key)}"


def _alike_name(direction: Direction, keys: Collection[Key]) -> str:
    return f"{direction}-{_digest(*keys)}"


def _group_name(group: Group, version: int) -> str:
    namespaces = _selector(group.namespaces) if group.namespaces is not None else None
    return f"group{version}-{_digest(group.namespace, namespaces, _selector(group.pods))}"


def _named_name(named: Named, version: int) -> str:
    return f"ports{version}-{_digest(*named)}"


def _selector(selector: Selector) -> list[tuple[str, str, list[str]]]:
    return sorted((one.key, one.operator, sorted(one.values)) for one in selector.requirements)
