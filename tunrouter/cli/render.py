"""The snapshot as text, in the layout that Weave's users and their scripts know.

Law: labels are right-aligned to the colon; a summary has a blank line before and after; connection states come in one
order and zero states are not printed; whatever a peer could have written passes `printable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from tunrouter.cli import ipam
from tunrouter.cli.text import duration, label, labelled, node_name, paint, printable, size
from tunrouter.core import versions
from tunrouter.core.status import Connection, Host, Peer, Policy, Snapshot, Worker

STATES: Final = ("established", "pending", "retrying", "failed", "connecting")
STATE_COLOURS: Final = {"established": "green", "pending": "yellow", "retrying": "yellow", "failed": "red"}
OVERLAY: Final = "tun"
PROTOCOL: Final = f"tunrouter {versions.SPOKEN}"


class Style(NamedTuple):
    wide: bool = False
    colour: bool = False


def report(snapshot: Snapshot, name: str | None, style: Style) -> str:
    """The summary, or the report of that name, without the last newline."""
    if name == "connections":
        return "\n".join(connections(snapshot, style))
    if name == "peers":
        return "\n".join(peers(snapshot, style))
    if name == "routes":
        return "\n".join(routes(snapshot, style))
    if name == "gossip":
        return "\n".join(gossip(snapshot))
    if name == "ipam":
        return "\n".join(ipam.report(snapshot.ipam, wide=style.wide))
    if name == "targets":
        return "\n".join(printable(target) for target in snapshot.targets)
    return summary(snapshot, style)


def summary(snapshot: Snapshot, style: Style) -> str:
    blocks = [_version(snapshot, style), _router(snapshot, style), ipam.summary(snapshot, wide=style.wide)]
    if snapshot.policy is not None:
        blocks.append(labelled(("Policy", policy(snapshot.policy))))
    if style.wide:
        blocks += [_host(snapshot), _counters(snapshot)]
    refusal = why_no_pod(snapshot)
    unready = (f"no pod can be added: {refusal}",) if refusal else ()
    warnings = (*unready, *snapshot.warnings)
    blocks.append([f"{paint(label('Warning'), 'yellow', on=style.colour)} {printable(each)}" for each in warnings])
    return "\n" + "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def why_no_pod(snapshot: Snapshot) -> str:
    """Empty if one can be added."""
    return snapshot.unready or (snapshot.policy.hindrance if snapshot.policy is not None else "")


def policy(found: Policy) -> str:
    """Who sees to NetworkPolicies, and whether they are seen to."""
    if not found.expected:
        return "not by tunrouter: no weave-npc is expected on this node"
    if found.silent is None:
        return (
            f"not in force by weave-npc, the rules of before hold: {found.amiss}"
            if found.amiss
            else "in force by weave-npc"
        )
    return f"weave-npc does not answer since {duration(found.silent)}, so no pod can be added: {found.why}"


def _version(snapshot: Snapshot, style: Style) -> list[str]:
    lines = labelled(("Version", snapshot.version))
    if style.wide:
        lines += labelled(("Kernel", snapshot.kernel), ("Uptime", duration(snapshot.uptime)))
    return lines


def _router(snapshot: Snapshot, style: Style) -> list[str]:
    lines = labelled(
        ("Service", "router"),
        ("Protocol", PROTOCOL),
        ("Name", node_name(snapshot.name, snapshot.nickname)),
        ("Encryption", "enabled" if snapshot.encryption else "disabled"),
        ("PeerDiscovery", "enabled" if snapshot.discovery else "disabled"),
        ("Targets", len(snapshot.targets)),
        ("Connections", _connection_counts(snapshot.connections)),
        ("Peers", _peer_counts(snapshot.peers)),
        ("TrustedSubnets", "none"),
    )
    if style.wide or snapshot.host.underlay:
        lines += labelled(("Underlay", _underlay(snapshot.host)))
    if style.wide:
        lines += labelled(
            ("Network", snapshot.network),
            ("Port", snapshot.port),
            ("Secrets", snapshot.secrets),
            ("Id", f"{snapshot.id}, incarnation {snapshot.incarnation}"),
        )
    return lines


def _underlay(host: Host) -> str:
    """Which address is used, and by whose choice."""
    address = f"{host.underlay} ({host.underlay_device})" if host.underlay_device else host.underlay
    return f"{address or 'all addresses'}{f', by {host.underlay_wish}' if host.underlay_wish else ''}"


def _host(snapshot: Snapshot) -> list[str]:
    host = snapshot.host
    return labelled(
        ("Service", "host"),
        ("Bridge", f"{host.bridge} {host.bridge_address} ({host.bridge_mode})"),
        ("Tun", f"{host.tun} ({', '.join(host.tun_offloads) or 'no offloads'})"),
        *(("Worker", _worker(worker)) for worker in snapshot.workers),
        ("UnderlayMTU", host.underlay_mtu),
        ("Attachments", host.attachments),
        *(("Firewall", finding) for finding in host.firewall),
    )


def _worker(worker: Worker) -> str:
    state = f"pid {worker.pid}, up {duration(worker.uptime)}" if worker.pid else "being replaced"
    return f"{worker.number} ({state}{f', replaced {worker.restarts} times' if worker.restarts else ''})"


def _counters(snapshot: Snapshot) -> list[str]:
    counted = sorted((name, count) for name, count in snapshot.counters.items() if count)
    return (
        [*labelled(("Service", "counters")), *(f"{printable(name):>32}: {count}" for name, count in counted)]
        if counted
        else []
    )


def _connection_counts(all_connections: Iterable[Connection]) -> str:
    states = [connection.state for connection in all_connections]
    counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
    return f"{len(states)} ({', '.join(counts)})" if counts else str(len(states))


def _peer_counts(all_peers: Iterable[Peer]) -> str:
    """Each link counts at both of its ends, as in Weave."""
    known = list(all_peers)
    links = [connection for peer in known for connection in peer.connections]
    established = sum(connection.state == "established" for connection in links)
    counts = [(established, "established"), (len(links) - established, "pending")]
    shown = [f"{count} {state}" for count, state in counts if count]
    return f"{len(known)} (with {', '.join(shown)} connections)" if shown else str(len(known))


def connections(snapshot: Snapshot, style: Style) -> Iterator[str]:
    width = max([21, *(len(printable(connection.address)) for connection in snapshot.connections)])
    for connection in snapshot.connections:
        state = paint(f"{printable(connection.state):<11}", STATE_COLOURS.get(connection.state, ""), on=style.colour)
        info = _info(connection, snapshot.encryption, style)
        yield f"{_arrow(connection)} {printable(connection.address):<{width}} {state} {info}".rstrip()


def _arrow(connection: Connection) -> str:
    return "->" if connection.outbound else "<-"


def info(connection: Connection, password: bool) -> str:
    """What Weave calls by this name: what carries the connection and who is there, or why it does not stand."""
    if connection.state not in ("established", "pending"):
        return ", ".join(_failure(connection))
    words = [f"{'encrypted' if connection.encrypted else 'unencrypted':<11}"] if password else []
    words += [f"{OVERLAY:<6}", node_name(connection.peer, connection.nickname)]
    return " ".join(word for word in words if word)


def _info(connection: Connection, password: bool, style: Style) -> str:
    if connection.state not in ("established", "pending"):
        return info(connection, password)
    words = [info(connection, password), *_attributes(connection)]
    if style.wide:
        words += _wide_attributes(connection)
    line = " ".join(word for word in words if word)
    return f"{line} ({printable(connection.reason)})" if connection.reason else line


def _failure(connection: Connection) -> list[str]:
    words = [printable(connection.reason)] if connection.reason else []
    if connection.retry_in is not None:
        words.append(f"retry: in {duration(connection.retry_in)}")
    elif connection.state == "failed":
        words.append("retry: never")
    return words


def _attributes(connection: Connection) -> list[str]:
    attributes = [f"mtu={connection.mtu}"] if connection.mtu else []
    if connection.rtt is not None:
        attributes.append(f"rtt={duration(connection.rtt)}")
    if connection.loss is not None:
        attributes.append(f"loss={connection.loss:.1%}")
    if connection.path != "direct":
        attributes.append(f"path={printable(connection.path)}")
    return attributes


def _wide_attributes(connection: Connection) -> list[str]:
    attributes = [f"path={connection.path}"] if connection.path == "direct" else []
    attributes.append(f"sent={size(connection.sent_bytes)}/{connection.sent_packets}")
    attributes.append(f"received={size(connection.received_bytes)}/{connection.received_packets}")
    for name, seconds in (("handshake", connection.last_handshake), ("heard", connection.last_received)):
        if seconds is not None:
            attributes.append(f"{name}={duration(seconds)}")
    return attributes


def peers(snapshot: Snapshot, style: Style) -> Iterator[str]:
    for peer in snapshot.peers:
        extra = f" id={peer.id} blocks={','.join(peer.blocks)}" if style.wide else ""
        yield printable(node_name(peer.name, peer.nickname) + extra)
        for connection in peer.connections:
            state = "established" if connection.state == "established" else "pending"
            name = node_name(connection.peer, connection.nickname)
            colour = STATE_COLOURS[state]
            line = f"   {_arrow(connection)} {printable(connection.address):<21} {name:<37}"
            yield f"{line} {paint(state, colour, on=style.colour)}"


def routes(snapshot: Snapshot, style: Style) -> Iterator[str]:
    for route in snapshot.routes:
        name = node_name(route.peer, route.nickname)
        words = [f"mtu={route.mtu}"] if route.mtu else []
        words += [f"version={route.version}"] if style.wide else []
        words += [paint(f"not used: {printable(route.conflict)}", "red", on=style.colour)] if route.conflict else []
        yield f"{route.block:<18} {name:<37} {printable(route.path):<10} {' '.join(words)}".rstrip()


def gossip(snapshot: Snapshot) -> Iterator[str]:
    found = snapshot.gossip
    if found is None:
        return
    yield from labelled(
        ("Nodes", f"{found.nodes} ({found.reachable} reachable)"),
        ("Records", found.records),
        ("Digest", found.digest),
        ("Neighbours", len(found.neighbours)),
    )
    for one in found.neighbours:
        rtt = f" rtt={duration(one.rtt)}" if one.rtt is not None else ""
        waiting = f" queued={one.queued} unacknowledged={one.unacknowledged}"
        yield f"   {node_name(one.peer, one.nickname):<37} {one.reason:<7}{rtt}{waiting}"
