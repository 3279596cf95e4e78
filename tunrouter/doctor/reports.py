"""What a running agent says of itself: addresses, its own health, what it dropped and refused of late.

Law: pure functions of the snapshot, each of which says something. Counters are judged by what they grew in the last
minutes, never by what once was; the words for each are those of the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tunrouter.agent import counted
from tunrouter.core import status
from tunrouter.core.status import READY, UNREACHABLE, WAITING, Snapshot
from tunrouter.doctor import peers
from tunrouter.doctor.cluster import cluster
from tunrouter.doctor.finding import Finding

SHOWN: Final = 16
"""Fenced pods that are listed; JSON of `status` has all of them."""
ADDRESS_FIXES: Final = {
    WAITING: "remove containers or dead nodes, or give the network a larger --range",
    UNREACHABLE: "if those nodes are gone for good: tunrouter rmpeer PEER",
}
JUMP_SECONDS: Final = 86_400.0
"""A jump of the clock longer ago is not spoken of."""
MANY_REPAIRS: Final = 5
"""In a minute or two: somebody sets up the host against us. Once or twice is an operator."""
MANY_DROPS: Final = 10
"""In a minute or two; a few are lost whenever something changes."""
STARVED, RESTARTS, CLONED = "starved", "worker_restarts", "identity_cloned"
DROP_FIXES: Final = {
    "drop_inner_destination": "two nodes disagree about a block: see the line blocks, here and on the peers",
    "drop_inner_source": "a peer sends with another node's address: see the line blocks, and who does it there",
    "drop_malformed": "see who sends it: tcpdump -ni any udp port {port}",
    "drop_no_route": "see which address it is: tcpdump -ni {tun}, then tunrouter whois ADDRESS",
    "drop_path_mtu": "see the lines mtu and path-mtu",
    "drop_send_buffer": "raise it: sysctl -w net.core.wmem_max=16777216, and restart the agent",
    "drop_tag": "see who sends it: tcpdump -ni any udp port {port}; a path that damages datagrams shows in ethtool -S",
    "drop_unreachable": "give this host a route to its peers: ip route get ADDRESS, for each in status connections",
}


def told(snapshot: Snapshot) -> list[Finding]:
    """All that can be said of it, in the order of `REPORTS`."""
    return [finding for report in REPORTS for finding in report(snapshot)]


def addresses(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether the next container gets one, and the last ones keep theirs."""
    found = snapshot.ipam
    if found is None:
        return
    if found.fenced:
        more = f" and {len(found.fenced) - SHOWN} more" if len(found.fenced) > SHOWN else ""
        what = f"{', '.join(found.fenced[:SHOWN])}{more}: the block is another node's now, so traffic is dropped"
        yield Finding("addresses", "fail", what, "start those containers anew: they get other addresses")
    elif found.status in ADDRESS_FIXES:
        yield Finding("addresses", "fail", found.status, ADDRESS_FIXES[found.status])
    elif found.status != READY:
        what = f"{found.status}; until then no new block can be had, and {found.free} addresses are free here"
        away = [elector.nickname for elector in found.electors if not elector.reachable]
        lost = f"start the electors that do not answer: {', '.join(away)}" if away else "start the other nodes"
        yield Finding("addresses", "warn", what, f"{lost}; see: tunrouter status ipam")
    elif snapshot.unready and not found.free:
        yield Finding("addresses", "fail", snapshot.unready, ADDRESS_FIXES[WAITING])
    else:
        yield Finding("addresses", "ok", f"{found.used} used, {found.free} free in {found.blocks_own} blocks here")


def agent(snapshot: Snapshot) -> Iterator[Finding]:
    """What hinders the agent itself."""
    found = [finding for ailment in AILMENTS for finding in ailment(snapshot)]
    yield from found or [Finding("agent", "ok", f"{len(snapshot.workers)} worker(s), none replaced of late")]


def _hindrance(snapshot: Snapshot) -> Iterator[Finding]:
    ipam = snapshot.ipam
    if snapshot.unready and (ipam is None or (ipam.status == READY and ipam.free)):
        yield Finding("agent", "fail", f"no pod can be attached: {snapshot.unready}", "see the agent's log for more")
    if snapshot.kernel == "reference":
        what = "packets are moved by the slow reference in Python: the compiled kernel is missing"
        yield Finding("agent", "warn", what, "install a C compiler and libffi's headers, then install tunrouter again")


def _workers(snapshot: Snapshot) -> Iterator[Finding]:
    gone = [str(worker.number) for worker in snapshot.workers if not worker.pid]
    restarts = snapshot.lately.get(RESTARTS, 0)
    fix = "the agent's log says why it went; if it was killed, see dmesg and the memory limit of the unit or container"
    if gone:
        yield Finding("agent", "fail", f"worker {', '.join(gone)} is gone and is being replaced", fix)
    elif restarts:
        yield Finding("agent", "warn", f"a worker was replaced {_times(restarts)} in the last minutes", fix)


def _starved(snapshot: Snapshot) -> Iterator[Finding]:
    times = snapshot.lately.get(STARVED, 0)
    if times:
        what = f"the agent was held up for more than half a second {_times(times)} in the last minutes"
        fix = "give it processor time: see top, and CPUQuota= of its unit or the limit of its container"
        yield Finding("agent", "warn", what, fix)


def _fought(snapshot: Snapshot) -> Iterator[Finding]:
    repairs = snapshot.lately.get(status.REPAIRS, 0)
    if repairs >= MANY_REPAIRS:
        last = ", ".join(dict.fromkeys(snapshot.host.repaired))
        what = f"somebody undoes what the agent sets up: {repairs} repairs in the last minutes, the last of {last}"
        fix = "find out who, with nft monitor or ip monitor all, and have it leave these alone"
        yield Finding("agent", "fail", what, fix)


def _clock(snapshot: Snapshot) -> Iterator[Finding]:
    clock = snapshot.clock
    if clock is not None and clock.ago is not None and clock.ago < JUMP_SECONDS:
        way = "forward" if clock.last > 0 else "back"
        what = (
            f"somebody set the clock {way} by {abs(clock.last):.0f} s, {_ago(clock.ago)} ago: the network does not go "
            "by it, but times in logs and metrics do"
        )
        yield Finding(
            "agent", "warn", what, "see who sets it: timedatectl; let one service do it: timedatectl set-ntp true"
        )


def _copied(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.lately.get(CLONED, 0):
        what = "another machine has this node's identity: its state directory was copied"
        yield Finding("agent", "fail", what, peers.CLONE_FIX)


AILMENTS: Final = (_hindrance, _copied, _workers, _starved, _fought, _clock)


def drops(snapshot: Snapshot) -> Iterator[Finding]:
    """What was dropped of late, and which limits were hit."""
    found = []
    for name, meaning in counted.DROPPED.items():
        count = snapshot.lately.get(name, 0)
        if count >= MANY_DROPS and name not in counted.BOUNDS:
            fix = DROP_FIXES.get(name, "see docs/metrics.md, and report it with tunrouter status -o json if it goes on")
            fix = fix.format(port=snapshot.port, tun=snapshot.host.tun or "tunrouter0")
            found.append(Finding("drops", "warn", f"{name} grew by {count} in the last minutes: {meaning}", fix))
    every = counted.DROPPED | counted.REFUSED | counted.FAULTS
    for name in counted.BOUNDS:
        if count := snapshot.lately.get(name, 0):
            what = f"a limit was hit {_times(count)} in the last minutes ({name}): {every[name]}"
            fix = "a flood, or more than the agent is made for: see tunrouter status connections, and docs/metrics.md"
            found.append(Finding("drops", "warn", what, fix))
    yield from found or [Finding("drops", "ok", "nothing to speak of in the last minutes")]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _ago(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


REPORTS: Final[tuple[Callable[[Snapshot], Iterator[Finding]], ...]] = (
    peers.peers,
    peers.password,
    peers.path_mtu,
    peers.blocks,
    addresses,
    cluster,
    agent,
    drops,
)
