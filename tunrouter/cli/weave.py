"""The snapshot in the structure of Weave's `weave report`, and all of our own beside it.

Law: a key that Weave's users know has its meaning, or the value that says "none": what does not exist here (captures,
MACs, DNS) is empty or null, never left out. Keys of ours begin with a small letter.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Final

from tunrouter.cli import render
from tunrouter.core.status import Connection, Peer, Snapshot

SCHEMA: Final = 1
NAME: Final = "tunrouter"
PROTOCOL_VERSION: Final = 1
NOBODY: Final = "00:00:00:00:00:00"
"""By whom the way to oneself leads."""
NEVER: Final = "0001-01-01T00:00:00Z"
VERSION_CHECK: Final = {"Enabled": False, "Success": False, "NewVersion": "", "NextCheckAt": NEVER}
"""We ask nobody."""
ABSENT: Final = {"DNS": None, "Proxy": None, "Plugin": None}
Tree = dict[str, object]


def report(snapshot: Snapshot) -> Tree:
    return {
        "schema": SCHEMA,
        "running": True,
        "Ready": not snapshot.unready,
        "Version": snapshot.version,
        "VersionCheck": VERSION_CHECK,
        "Router": _router(snapshot),
        "IPAM": _ipam(snapshot),
        **ABSENT,
        "disk": None,
        "snapshot": snapshot,
    }


def router(*, name: str, nickname: str, port: int, encryption: bool, discovery: bool, interface: str) -> Tree:
    """What there is to say of a node alone; all else is none."""
    return {
        "Protocol": NAME,
        "ProtocolMinVersion": PROTOCOL_VERSION,
        "ProtocolMaxVersion": PROTOCOL_VERSION,
        "Encryption": encryption,
        "PeerDiscovery": discovery,
        "Name": name,
        "NickName": nickname,
        "Port": port,
        "Peers": [],
        "UnicastRoutes": [],
        "BroadcastRoutes": [],
        "Connections": [],
        "TerminationCount": 0,
        "Targets": [],
        "OverlayDiagnostics": {"fastdp": None, "sleeve": None},
        "TrustedSubnets": [],
        "Interface": interface,
        "CaptureStats": {},
        "MACs": [],
    }


def _router(snapshot: Snapshot) -> Tree:
    alone = router(
        name=snapshot.name,
        nickname=snapshot.nickname,
        port=snapshot.port,
        encryption=snapshot.encryption,
        discovery=snapshot.discovery,
        interface=f"{snapshot.host.tun} (via TUN)",
    )
    return alone | {
        "Peers": [_peer(peer) for peer in snapshot.peers],
        "UnicastRoutes": list(_ways(snapshot)),
        "Connections": [_connection(connection, snapshot.encryption) for connection in snapshot.connections],
        "TerminationCount": snapshot.counters.get("sessions_ended", 0),
        "Targets": list(snapshot.targets),
    }


def _peer(peer: Peer) -> Tree:
    """Weave's version of a peer counts what it told; of that nothing is known here."""
    number = int(peer.id, 16)
    return {
        "Name": peer.name,
        "NickName": peer.nickname,
        "UID": number,
        "ShortID": number & 0xFFF,
        "Version": 0,
        "Connections": [
            {
                "Name": connection.peer,
                "NickName": connection.nickname,
                "Address": connection.address,
                "Outbound": connection.outbound,
                "Established": connection.state == "established",
            }
            for connection in peer.connections
        ],
    }


def _ways(snapshot: Snapshot) -> Iterator[Tree]:
    """By which neighbour datagrams for each node leave: to whom no session stands they would go directly."""
    relays = {connection.peer: connection.via for connection in snapshot.connections if connection.via}
    for peer in snapshot.peers:
        own = peer.name == snapshot.name
        yield {"Dest": peer.name, "Via": NOBODY if own else relays.get(peer.name, peer.name)}


def _connection(connection: Connection, password: bool) -> Tree:
    standing = connection.state == "established"
    attributes: Tree = {
        "name": render.OVERLAY,
        "encrypted": connection.encrypted,
        "mtu": connection.mtu,
        "path": connection.path,
        "rtt": connection.rtt,
        "loss": connection.loss,
    }
    return {
        "Address": connection.address,
        "Outbound": connection.outbound,
        "State": connection.state,
        "Info": render.info(connection, password),
        "Attrs": attributes if standing else None,
    }


def _ipam(snapshot: Snapshot) -> Tree | None:
    ipam = snapshot.ipam
    if ipam is None:
        return None
    here = {owner.peer for owner in ipam.owners if owner.reachable}
    decides = {"Elector": any(one.this for one in ipam.electors), "KnownNodes": ipam.known, "Quorum": ipam.quorum}
    return {
        "Paxos": decides if ipam.mode == "registers" else None,
        "Range": ipam.range,
        "RangeNumIPs": IPv4Network(ipam.range).num_addresses,
        "ActiveIPs": ipam.used,
        "DefaultSubnet": ipam.range,
        "Entries": [
            entry(route.block, route.peer, route.nickname, route.version, known=route.peer in here)
            for route in snapshot.routes
            if not route.conflict
        ],
        "PendingClaims": [{"Ident": one.container, "CIDR": f"{one.address}/32"} for one in ipam.claims],
        "PendingAllocates": [one.container for one in ipam.pending if one.container],
    }


def entry(block: str, peer: str, nickname: str, version: int, *, known: bool) -> Tree:
    network = IPv4Network(block)
    return {
        "Token": str(network.network_address),
        "Size": network.num_addresses,
        "Peer": peer,
        "Nickname": nickname,
        "IsKnownPeer": known,
        "Version": version,
    }
