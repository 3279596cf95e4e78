"""What a running agent knows to be wrong between it and other nodes: the ways, the passwords, the sizes, the blocks.

Law: pure functions of the snapshot. A peer is named as the user finds it in `status connections`, by name and address;
of addresses that anybody can forge few are shown and the others counted. What goes by relay is not lost, so it is a
`warn`; what nobody carries is a `fail`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tunrouter.core import status
from tunrouter.core.status import Connection, Peer, Snapshot
from tunrouter.doctor.finding import Finding, Level

SHOWN: Final = 4
"""Of a kind; most of a large cluster may be away at once."""
CLONE_FIX: Final = "on one of the two: stop the agent, remove its state directory, start it again"
CLUSTER_FIX: Final = (
    "on the one that is to join: tunrouter leave --force, stop it, remove its state directory, start it"
)
DIRECTIONS: Final = (status.ONE_WAY_OUT, status.ONE_WAY_IN)
SURE: Final = 2
"""Handshakes of a stranger that came to nothing before it is spoken of: one may be of somebody who has just gone."""


def peers(snapshot: Snapshot) -> Iterator[Finding]:
    """Who is not reached, or not as it should be."""
    found = [*_known(snapshot), *_strangers(snapshot)]
    yield from _few("peers", found)
    if not found:
        standing = sum(one.state == "established" for one in snapshot.connections)
        yield Finding("peers", "ok", f"{standing} connected directly" if standing else "none yet, and none is missed")


def _known(snapshot: Snapshot) -> Iterator[Finding]:
    """Sessions, and what the operator named."""
    for one in snapshot.connections:
        explain = FAULTS.get(one.fault)
        if explain is not None and (one.outbound or one.peer):
            yield explain(snapshot, one)


def _strangers(snapshot: Snapshot) -> Iterator[Finding]:
    """Who only calls here; not who was spoken of already."""
    spoken_of = {(one.address, one.fault) for one in snapshot.connections if one.outbound or one.peer}
    for one in snapshot.connections:
        explain = FAULTS.get(one.fault)
        if explain is None or one.outbound or one.peer or (one.address, one.fault) in spoken_of:
            continue
        if one.refused >= SURE or one.fault not in DIRECTIONS:
            yield explain(snapshot, one)


def _one_way(snapshot: Snapshot, one: Connection) -> Finding:
    relayed = f"; its traffic goes by {one.path}" if one.path.startswith("relay") else ""
    level: Level = "warn" if relayed else "fail"
    ours = _ours(snapshot, one.address)
    if one.fault == status.ONE_WAY_OUT:
        what = f"UDP from here to {who(one)} is lost, while what it sends arrives here{relayed}"
        fix = f"let UDP from {ours} to {one.address} out of this host, through what lies between, and in there"
    else:
        what = f"UDP from {who(one)} to here is lost, while what we send arrives there{relayed}"
        fix = f"let UDP from {one.address} to {ours} out of that host, through what lies between, and in here"
    return Finding("peers", level, what, fix)


def _relayed(snapshot: Snapshot, one: Connection) -> Finding:
    what = f"no direct way to {who(one)}: its traffic goes by {one.path}"
    return Finding(
        "peers", "warn", what, f"let UDP between {_ours(snapshot, one.address)} and {one.address} pass both ways"
    )


def _silent(snapshot: Snapshot, one: Connection) -> Finding:
    what = f"{who(one)} does not answer"
    fix = (
        f"start its agent, or let UDP {snapshot.port} pass both ways; whether ours arrives, tunrouter doctor says there"
    )
    return Finding("peers", "warn", what, fix)


def _cluster(_: Snapshot, one: Connection) -> Finding:
    return Finding("peers", "fail", f"{who(one)} {one.reason}", CLUSTER_FIX)


def _version(_: Snapshot, one: Connection) -> Finding:
    return Finding("peers", "fail", f"{who(one)}: {one.reason}", "install the same release of tunrouter on both")


def _clone(_: Snapshot, one: Connection) -> Finding:
    what = f"{who(one)} has this node's identity: its state directory was copied"
    return Finding("peers", "fail", what, CLONE_FIX)


def _hole(_: Snapshot, one: Connection) -> Finding:
    what = f"{who(one)}: {one.reason}, so only small packets pass"
    return Finding("peers", "fail", what, "mend the MTU on the way there: every path has to carry 1280 bytes")


FAULTS: Final[dict[str, Callable[[Snapshot, Connection], Finding]]] = {
    status.ONE_WAY_OUT: _one_way,
    status.ONE_WAY_IN: _one_way,
    status.RELAYED: _relayed,
    status.SILENT: _silent,
    status.CLUSTER: _cluster,
    status.VERSION: _version,
    status.CLONE: _clone,
    status.HOLE: _hole,
}


def password(snapshot: Snapshot) -> Iterator[Finding]:
    """Who has another secret; a host that calls from many ports is one."""
    refused: dict[tuple[str, str], int] = {}
    named = set()
    for one in snapshot.connections:
        if one.fault == status.MISMATCH:
            key = _host(one.address), one.reason
            refused[key] = refused.get(key, 0) + one.refused
            named |= {key} if one.outbound else set()
    worst = sorted(refused, key=lambda key: (key not in named, -refused[key], key))
    yield from _few("password", [_mismatch(*key, refused[key], named=key in named) for key in worst])
    if not worst:
        yield Finding("password", "ok", "nobody calls with another" if snapshot.encryption else "none, here and there")


def _mismatch(host: str, reason: str, times: int, *, named: bool) -> Finding:
    often = f" ({times} handshakes refused of late)" if times else ""
    fix = "give both the same --password-file and --network, then restart the agent that had the other"
    return Finding("password", "fail" if named else "warn", f"{host}: {reason}{often}", fix)


def path_mtu(snapshot: Snapshot) -> Iterator[Finding]:
    """Whose path carries less than pods send, and whose pods send something else."""
    found = [_small(snapshot, one) for one in snapshot.connections if _is_small(snapshot, one)]
    found += [
        Finding("path-mtu", "warn", f"pods of {peer.nickname} have MTU {peer.mtu}, those here {snapshot.mtu}",
                "give all nodes the same --mtu, and start their pods anew")
        for peer in snapshot.peers[1:] if peer.mtu not in (0, snapshot.mtu)
    ]  # fmt: skip
    yield from _few("path-mtu", found)
    if not found:
        yield Finding("path-mtu", "ok", f"every path carries pods' packets of {snapshot.mtu} bytes")


def _is_small(snapshot: Snapshot, one: Connection) -> bool:
    return one.state == "established" and 0 < one.mtu < snapshot.mtu and one.fault != status.HOLE


def _small(snapshot: Snapshot, one: Connection) -> Finding:
    nic = f" (this host's card takes {snapshot.host.underlay_mtu})" if snapshot.host.underlay_mtu else ""
    what = (
        f"datagrams of {one.path_mtu_wanted} bytes vanish on the way to {who(one)}{nic}; {one.path_mtu} arrive, "
        f"so pods' packets have {one.mtu} bytes there instead of {snapshot.mtu}"
    )
    fix = f"raise the MTU on the way (a tunnel or VPN), or start all agents with --mtu {one.mtu} and their pods anew"
    return Finding("path-mtu", "warn", what, fix)


def blocks(snapshot: Snapshot) -> Iterator[Finding]:
    """Whose addresses lead nowhere."""
    found = [
        Finding(
            "blocks", "fail", f"traffic to {peer.nickname} is dropped: it {peer.refused}", _refused_fix(snapshot, peer)
        )
        for peer in snapshot.peers
        if peer.refused
    ]
    for route in snapshot.routes:
        if route.conflict:
            fix = f"give one of the two another --block; {route.nickname}'s pods have to start anew"
            if route.version:
                fix = "wait: its register decides; if it cannot, tunrouter status ipam names the electors that are away"
            what = f"{route.block} of {route.nickname} is not used: {route.conflict}"
            found.append(Finding("blocks", "fail", what, fix))
    yield from _few("blocks", found)
    if not found:
        yield Finding("blocks", "ok", f"{len(snapshot.routes)} known, each of one node")


def _refused_fix(snapshot: Snapshot, peer: Peer) -> str:
    if "cluster" in peer.refused:
        return CLUSTER_FIX
    reset = "tunrouter reset"
    values = f"--range {snapshot.range}"
    if snapshot.ipam is not None:  # there it has blocks that were given under other values
        reset = f"{reset} --purge"
        values = f"{values} and --block-size {snapshot.ipam.block_size}"
    return f"start the agent there with {values}, as here, after: {reset}"


def _few(check: str, found: list[Finding]) -> Iterator[Finding]:
    """The worst of them, and how many more."""
    found.sort(key=lambda finding: finding.level != "fail")
    yield from found[:SHOWN]
    if len(found) > SHOWN:
        level = found[SHOWN].level
        yield Finding(check, level, f"and {len(found) - SHOWN} more like these", "see: tunrouter status connections")


def who(one: Connection) -> str:
    return f"{one.nickname} at {one.address}" if one.nickname else one.address


def _host(address: str) -> str:
    """Without its port."""
    return address.rpartition(":")[0].strip("[]") if address.rpartition(":")[2].isdigit() else address


def _ours(snapshot: Snapshot, theirs: str) -> str:
    """Where others see us, in the peer's family."""
    same = [address for address in snapshot.endpoints if address.startswith("[") == theirs.startswith("[")]
    return same[0] if same else f"this host's port {snapshot.port}"
