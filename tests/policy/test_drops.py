"""What policies refuse is told: in the log of the node that refused it, as an Event at the pod, and counted."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from tests.policy.cluster import Cluster, probed
from tests.policy.probing import Cell, Prober
from tests.policy.written import ALL, EVERY, policy
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import Pod
from tunrouter.edge.netlink.nflog import Log, Logged
from tunrouter.errors import HostError
from tunrouter.npc.drops import A_POD, OTHER, PORTS, Drops

DENY = policy("x", ALL, "deny", EVERY)
CLOSED = policy("y", ALL, "closed", ("Egress",))


@pytest.fixture
def told_nothing() -> Iterator[tuple[Cluster, Prober]]:
    """A cluster of its own: Events are few, and others' tests would have used them up."""
    with probed() as made:
        yield made


def events(found: Cluster, namespace: str) -> dict[str, str]:
    """Messages, by the pod that they are about."""
    told = found.scene.control.do("all", api_version="v1", kind="Event", namespace=namespace)
    blocked = [one for one in told if one["reason"] == "ConnectionBlocked"]
    assert all(one["type"] == "Warning" and one["involvedObject"]["kind"] == "Pod" for one in blocked)
    return {one["involvedObject"]["name"]: one["message"] for one in blocked}


@pytest.mark.root
def test_what_is_refused_is_told_where_it_was_refused(told_nothing: tuple[Cluster, Prober]) -> None:
    found, prober = told_nothing
    found.enforce(DENY, CLOSED)
    server, client, other = found.pods["x/a"], found.pods["z/b"], found.pods["y/a"]
    here, there = (next(npc for npc in found.npcs if npc.host is pod.host) for pod in (server, other))
    assert client.host is not server.host
    assert not prober.opens(Cell("z/b", server.address, "TCP", 81))
    ingress = (
        f"TCP connection from z/b ({client.address}) to x/a ({server.address}) port 81 blocked by Weave NPC: "
        "ingress of x/a is isolated by x/deny, and nothing permits this"
    )
    wait_until("it is in the log", lambda: f"warning {ingress}\n" in here.log.read_text(), 5)
    told = f"{ingress}; see: tunrouter policy explain z/b x/a 81/tcp"
    wait_until("it is an Event", lambda: events(found, "x").get("a") == told, 5)
    assert here.metrics()['weavenpc_blocked_connections_total{dport="81",protocol="tcp"}'] >= 1

    assert not prober.opens(Cell("y/a", "192.0.2.50", "UDP", 80))
    egress = f"UDP connection from y/a ({other.address}) to 192.0.2.50 port 80 blocked by Weave NPC: egress of y/a is"
    wait_until(
        "so is the other direction", lambda: f"warning {egress} isolated by y/closed" in there.log.read_text(), 5
    )
    assert there.metrics()['weavenpc_blocked_connections_total{dport="80",protocol="udp"}'] >= 1


class Told:
    """Takes Events."""

    async def say(self, *_: Any, **__: Any) -> bool:
        return True


def nobody(group: int) -> Log:
    raise HostError(f"NFLOG group {group} is taken")


def packet(port: int) -> Logged:
    ends = ip_address("10.32.0.9"), ip_address("10.32.0.2")
    return Logged("ingress", 6, *ends, 40000, port, 0, 0, 2, 0, 0)


def test_a_scan_of_all_ports_is_no_flood_of_labels_events_or_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tunrouter.npc.drops.Log", nobody)
    told = Drops(Compiler("node-a"), Told())  # type: ignore[arg-type]
    for port in range(1, 5000):
        told._tell(packet(port))
    assert len(told.counts) == PORTS + 1
    assert sum(told.counts.values()) == 4999
    assert told.counts["tcp", OTHER] == 4999 - PORTS
    assert told._pending.qsize() == 0, "of a pod that nobody knows there is nothing to tell"
    assert not told.heard
    assert "not told: NFLOG group 86 is taken" in caplog.messages[0]
    assert "no pod is known to have 10.32.0.2 here" in caplog.messages[1]


def test_a_pod_that_is_scanned_leaves_room_for_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, and among the few Events."""
    monkeypatch.setattr("tunrouter.npc.drops.Log", nobody)
    compiler = Compiler("node-a")
    for name, address in (("scanned", "10.32.0.2"), ("quiet", "10.32.0.3")):
        compiler.put_pod(Pod("x", name, f"uid-{name}", {}, (ip_address(address),), node="node-a"))
    told = Drops(compiler, Told())  # type: ignore[arg-type]
    for port in range(1, 1000):
        told._tell(packet(port))
    told._tell(packet(80)._replace(destination=ip_address("10.32.0.3")))
    assert sum("to x/scanned" in line for line in caplog.messages) == A_POD
    assert sum("to x/quiet" in line for line in caplog.messages) == 1
    names = [told._pending.get_nowait()[1].name for _ in range(told._pending.qsize())]
    assert names == ["scanned", "quiet"]
