"""The node's part of the snapshot: its connections and peers, in the order and words that `status` shows."""

from __future__ import annotations

from typing import Final, NamedTuple

from tunrouter.core import record, seam, status
from tunrouter.core.dial import NO_ANSWER, Dial, text
from tunrouter.core.node import Node
from tunrouter.core.refusals import Rejected
from tunrouter.core.seam import Endpoint
from tunrouter.core.session import Session
from tunrouter.core.states import STANDING, State
from tunrouter.core.tally import Counts
from tunrouter.core.targets import Target


def connections(node: Node, now: float) -> tuple[status.Connection, ...]:
    """Sessions first, then what is dialled, then targets without address, then strangers that were refused."""
    sessions = sorted(node.sessions.values(), key=lambda session: session.node)
    rows = [_of_session(node, session, now) for session in sessions if _shown(node, session)]
    at = {session.endpoint for session in sessions if _shown(node, session)}
    at |= {seam.relayed(session.node) for session in sessions}
    at |= {session.home for session in sessions if session.relayed}  # tried again now and then: not another connection
    rows += [_of_dial(dial, now) for dial in node.dials.all() if not dial.quiet and dial.endpoint not in at]
    rows += [_of_target(target) for target in node.targets if target.endpoint is None]
    rows += [_of_stranger(source, seen) for source, seen in node.half_open.rejected.items() if source not in at]
    return tuple(rows)


def endpoints(node: Node) -> tuple[str, ...]:
    """Where this node is, as it announces it."""
    return tuple(text(endpoint) for endpoint in node.mesh.endpoints(node.local.id))


def peers(node: Node, now: float) -> tuple[status.Peer, ...]:
    """This node, then all that we know, each with the links that it tells of."""
    local = node.local
    own = tuple(str(announced.block) for announced in node.routes.own)
    mine = tuple(row for row in connections(node, now) if row.peer)
    this = status.Peer(
        name=status.peer_name(local.id),
        nickname=local.name,
        id=f"{local.id:016x}",
        blocks=own,
        connections=mine,
        mtu=local.pod_mtu,
    )
    return (this, *(_peer(node, other) for other in sorted({*node.mesh.nodes, *node.sessions})))


def _peer(node: Node, other: int) -> status.Peer:
    links = tuple(
        status.Connection(
            outbound=True,
            address=_address(node, link.node),
            state="established" if node.mesh.topology.linked(other, link.node) else "pending",
            peer=status.peer_name(link.node),
            nickname=_nickname(node, link.node),
            encrypted=node.local.sealed,
            rtt=record.class_seconds(link.rtt),
        )
        for link in node.mesh.links(other)
    )
    blocks = tuple(str(block) for block in node.routes.blocks(other))
    body = node.mesh.node(other)
    return status.Peer(
        name=status.peer_name(other),
        nickname=_nickname(node, other),
        id=f"{other:016x}",
        blocks=blocks,
        connections=links,
        refused=node.mesh.refused.get(other, ""),
        mtu=body.pod_mtu if body is not None else 0,
    )


def _nickname(node: Node, other: int) -> str:
    """Empty for a node of which only the id is known."""
    if node.mesh.node(other) is not None or other == node.local.id:
        return node.name_of(other)
    session = node.sessions.get(other)
    return session.name if session is not None else ""


def _address(node: Node, other: int) -> str:
    endpoints = node.mesh.endpoints(other)
    return text(endpoints[0]) if endpoints else ""


def routes(node: Node) -> tuple[status.Route, ...]:
    """All announced blocks in order of address; those that lost against another come after the winner's."""
    lost = {(conflict.block, conflict.loser): conflict.winner for conflict in node.routes.conflicts}
    rows = []
    for owner, announced in sorted(node.routes.announced()):
        winner = lost.get((announced.block, owner))
        session = node.sessions.get(owner)
        row = status.Route(
            block=str(announced.block),
            version=announced.version,
            peer=status.peer_name(owner),
            nickname=_nickname(node, owner),
            path=_path(node, owner, session),
            mtu=session.inner_mtu if session is not None and session.current is not None else 0,
            conflict=f"{_nickname(node, winner)} has it" if winner is not None else "",
        )
        rows.append((announced.block, winner is not None, row))
    rows.sort(key=lambda entry: entry[:2])
    return tuple(row for _, _, row in rows)


def _path(node: Node, owner: int, session: Session | None) -> str:
    if owner == node.local.id:
        return "local"
    if session is None or session.state not in STANDING:
        return "on demand"
    return f"relay through {node.name_of(node.hops.via(owner))}" if session.relayed else "direct"


def _via(node: Node, other: int) -> str:
    relay = node.hops.via(other)
    return status.peer_name(relay) if relay else ""


def gossip(node: Node) -> status.Gossip:
    replica = node.mesh.gossip.replica
    neighbours = []
    for session in sorted(node.neighbours.standing(), key=lambda session: session.node):
        spread = node.mesh.gossip.neighbours.get(session.node)
        row = status.Neighbour(
            peer=status.peer_name(session.node),
            nickname=session.name,
            reason="target" if session.targeted else "chosen" if session.chosen else "theirs",
            rtt=session.live.rtt,
            queued=len(spread.queue) if spread is not None else 0,
            unacknowledged=len(spread.flight) if spread is not None else 0,
        )
        neighbours.append(row)
    told = node.tally.gossip
    return status.Gossip(
        nodes=len(replica.nodes),
        reachable=len(node.mesh.topology.ways()) + 1,
        records=len(replica),
        digest=f"{replica.digest:016x}",
        neighbours=tuple(neighbours),
        sent_messages=told[0],
        sent_bytes=told[1],
        received_messages=told[2],
        received_bytes=told[3],
    )


def traffic(counts: Counts) -> status.Traffic:
    return status.Traffic(
        sent_packets=counts[0], sent_bytes=counts[1], received_packets=counts[2], received_bytes=counts[3]
    )


def _shown(node: Node, session: Session) -> bool:
    """A closed session that nobody wants is no connection."""
    if session.state is State.OPENING:
        return session.endpoint is not None and node.dials.get(session.endpoint) is not None
    return session.state in STANDING


def _of_session(node: Node, session: Session, now: float) -> status.Connection:
    standing = session.state in STANDING
    dial = node.dials.get(session.endpoint) if session.endpoint is not None else None
    trouble = _trouble(node, session, now) if standing else _failure(session, dial, now)
    keys = session.current
    sent_packets, sent_bytes, received_packets, received_bytes = session.traffic()
    return status.Connection(
        outbound=session.outbound,
        address=_where(node, session),
        state="established" if standing else _state(dial),
        peer=status.peer_name(session.node),
        nickname=session.name,
        encrypted=node.local.sealed,
        protocol=keys.version if keys is not None else 0,
        path=_path(node, session.node, session) if standing else "",
        mtu=session.inner_mtu,
        via=_via(node, session.node) if standing and session.relayed else "",
        rtt=session.live.rtt,
        loss=session.live.loss.share,
        last_handshake=now - keys.made if keys is not None else None,
        last_received=max(0.0, now - session.live.heard_at),
        sent_packets=sent_packets,
        sent_bytes=sent_bytes,
        received_packets=received_packets,
        received_bytes=received_bytes,
        counted=now - session.counted_at if session.counted_at is not None else None,
        apart=session.node in node.tally.apart,
        retry_in=max(0.0, dial.next_at - now) if dial is not None and not standing else None,
        path_mtu=session.mtu.size if keys is not None else 0,
        path_mtu_wanted=session.mtu.need if keys is not None else 0,
        reason=trouble.reason,
        fault=trouble.fault,
    )


class _Fault(NamedTuple):
    """What is wrong, in words for people and as one of `status`'s for programs."""

    reason: str
    fault: str


WAYS: Final = {
    status.ONE_WAY_OUT: "it does not hear us, though we hear it",
    status.ONE_WAY_IN: "we do not hear it, though it hears us",
}


def _trouble(node: Node, session: Session, now: float) -> _Fault:
    """What is not as it should be about one that stands."""
    if session.reason:
        return _Fault(session.reason, "")
    if refused := node.mesh.refused.get(session.node, ""):
        return _Fault(refused, status.BLOCKS)
    if session.relayed:
        way = session.ways.fault(now)
        return _Fault(f"no direct way: {WAYS[way]}", way) if way else _Fault("no direct way", status.RELAYED)
    if session.mtu.holed:
        return _Fault(f"not even datagrams of {session.mtu.size} bytes arrive", status.HOLE)
    return _Fault("", "")


def _where(node: Node, session: Session) -> str:
    """Its address; who goes by relay has the one at which it was last."""
    direct = session.home if session.relayed else session.endpoint
    return text(direct) if direct is not None else _address(node, session.node)


def _failure(session: Session, dial: Dial | None, now: float) -> _Fault:
    """Why it does not stand: a mismatch that the peer told us of says more than that it does not answer."""
    if dial is not None and dial.mismatch:
        return _Fault(dial.reason, dial.fault)
    if way := session.ways.fault(now):
        return _Fault(WAYS[way], way)
    if session.reason or dial is None:
        return _Fault(session.reason, status.SILENT if session.reason == NO_ANSWER else "")
    return _Fault(dial.reason, dial.fault)


def _of_dial(dial: Dial, now: float) -> status.Connection:
    never = dial.next_at == float("inf")
    return status.Connection(
        outbound=True,
        address=text(dial.endpoint),
        state=_state(dial),
        reason=dial.reason,
        fault=dial.fault,
        retry_in=None if never else max(0.0, dial.next_at - now),
    )


def _state(dial: Dial | None) -> str:
    if dial is None or not dial.reason:
        return "connecting"
    return "failed" if dial.mismatch else "retrying"


def _of_target(target: Target) -> status.Connection:
    return status.Connection(outbound=True, address=target.name, state="retrying", reason=target.reason)


def _of_stranger(source: Endpoint, seen: Rejected) -> status.Connection:
    return status.Connection(
        outbound=False,
        address=text(source),
        state="failed",
        reason=seen.reason,
        fault=seen.fault,
        refused=seen.times,
    )
