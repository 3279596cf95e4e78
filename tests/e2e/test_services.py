"""Services reach their endpoints in both modes of the bridge, and endpoints see whom they should."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from tests.e2e.services import (
    MODES,
    PROTOCOLS,
    Endpoints,
    Protocol,
    Talk,
    ask,
    cluster_ip,
    host_port,
    node_port,
    route_localnet,
    serve,
    switch,
)
from tunrouter.bench.lab import Lab, Pod
from tunrouter.bench.namespaces import Namespace, wait_until

pytestmark = pytest.mark.root

NEAR_IP, FAR_IP, CLUSTER_PORT = "10.96.0.1", "10.96.0.2", 80
NODE_PORT, HOST_PORT = 30080, 8000
OUTSIDE = "192.0.2.50"
SHUT_SECONDS = 3.0
"""The agent looks every two seconds."""


class Cluster:
    """Two nodes, `server` and its `neighbour` on the first, `remote` on the second, and somebody on the underlay.

    Each pod is an endpoint. `NEAR_IP`, the node port and the host port of the first node lead to `server`, `FAR_IP` to
    `remote`.
    """

    def __init__(self, lab: Lab) -> None:
        self.one, self.two = self.hosts = lab.hosts
        self.server, self.neighbour = self.one.add_pod("server"), self.one.add_pod("neighbour")
        self.remote = self.two.add_pod("remote")
        self.outside = Namespace(f"{lab.name}-outside")
        self.outside.create()
        lab.fabric.plug(self.outside, "outside", f"{OUTSIDE}/24")
        services = (
            cluster_ip(NEAR_IP, CLUSTER_PORT, self.server.address),
            cluster_ip(FAR_IP, CLUSTER_PORT, self.remote.address),
            node_port(NODE_PORT, self.server.address),
        )
        serve(self.one, (*services, host_port(HOST_PORT, self.server.address)))
        serve(self.two, services)

    @property
    def pods(self) -> tuple[Pod, ...]:
        return self.server, self.neighbour, self.remote

    def gateway(self, pod: Pod) -> str:
        return f"10.32.{pod.host.number}.1"


@pytest.fixture(scope="module")
def cluster(secret: str) -> Iterator[Cluster]:
    with Lab(hosts=2, offloads="off") as lab:
        lab.start_agents(password=secret)
        found = Cluster(lab)
        try:
            with Endpoints(found.pods):
                assert found.server.ping(found.remote.address)
                yield found
        finally:
            found.outside.delete()


@dataclass(frozen=True)
class Cell:
    """A client that asks at an address, and whom the endpoint has to see."""

    name: str
    client: Namespace
    address: str
    port: int
    seen: str


def cluster_ips(cluster: Cluster) -> list[Cell]:
    server, neighbour, remote = cluster.pods
    at = CLUSTER_PORT

    def cell(name: str, client: Namespace, address: str, seen: str) -> Cell:
        return Cell(f"{name} by ClusterIP", client, address, at, seen)

    return [
        cell("a pod to its neighbour", neighbour.namespace, NEAR_IP, neighbour.address),
        cell("a pod to another node's", neighbour.namespace, FAR_IP, neighbour.address),
        cell("the other node's pod to this one's", remote.namespace, NEAR_IP, remote.address),
        cell("a pod to itself", server.namespace, NEAR_IP, cluster.gateway(server)),
        cell("the other node's pod to itself", remote.namespace, FAR_IP, cluster.gateway(remote)),
        # A host asks with the address that it has towards the ClusterIP. The tunnel takes only addresses of the range.
        cell("a host to its pod", cluster.one.namespace, NEAR_IP, cluster.one.address),
        cell("a host to another node's", cluster.one.namespace, FAR_IP, cluster.gateway(server)),
        cell("the other host to this node's", cluster.two.namespace, NEAR_IP, cluster.gateway(remote)),
    ]


def host_ports(cluster: Cluster) -> list[Cell]:
    server, neighbour, remote = cluster.pods
    node, gateway = cluster.one.address, cluster.gateway(server)
    route_localnet(cluster.one, "weave")

    def cell(name: str, client: Namespace, seen: str, address: str = node) -> Cell:
        return Cell(f"{name} by host port", client, address, HOST_PORT, seen)

    return [
        cell("a pod to itself", server.namespace, gateway),
        cell("a pod to its neighbour", neighbour.namespace, neighbour.address),
        # What leaves for an address that is no pod's has its node's.
        cell("another node's pod", remote.namespace, cluster.two.address),
        cell("the own host", cluster.one.namespace, cluster.one.address),
        cell("the own host by 127.0.0.1", cluster.one.namespace, gateway, "127.0.0.1"),
        cell("the own host by the gateway", cluster.one.namespace, gateway, gateway),
        cell("a pod to its neighbour by the gateway", neighbour.namespace, neighbour.address, gateway),
        cell("another host", cluster.two.namespace, cluster.two.address),
        cell("somebody outside", cluster.outside, OUTSIDE),
    ]


def node_ports(cluster: Cluster) -> list[Cell]:
    """Of the endpoint's node, and of the other one: whoever asks, the endpoint sees the node that was asked."""
    cells = []
    for host in cluster.hosts:
        route_localnet(host, "all")
    for host, pod, which in ((cluster.one, cluster.server, "its"), (cluster.two, cluster.remote, "another")):
        clients = {
            "the endpoint itself": cluster.server.namespace,
            "its neighbour": cluster.neighbour.namespace,
            "another node's pod": cluster.remote.namespace,
            "its host": cluster.one.namespace,
            "another host": cluster.two.namespace,
            "somebody outside": cluster.outside,
        }
        asked = [(f"{name} by {which} node's port", client, host.address) for name, client in clients.items()]
        asked.append((f"127.0.0.1 by {which} node's port", host.namespace, "127.0.0.1"))
        cells += [Cell(name, client, to, NODE_PORT, cluster.gateway(pod)) for name, client, to in asked]
    return cells


def check(cells: list[Cell], protocol: Protocol, mode: str) -> None:
    """Every one, and then names those where the endpoint does not see whom it has to."""
    wrong = []
    for cell in cells:
        seen = ask(cell.client, protocol, cell.address, cell.port)
        if seen != cell.seen:
            where = f"{cell.name}, {protocol} to {cell.address}:{cell.port}, {mode}"
            wrong.append(f"{where}: the endpoint has to see {cell.seen}, but: {seen}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("nf_call", MODES, ids=MODES.values())
@pytest.mark.parametrize("cells", [cluster_ips, host_ports, node_ports])
def test_the_endpoint_sees_whom_it_should(
    cluster: Cluster, nf_call: bool, protocol: Protocol, cells: Callable[[Cluster], list[Cell]]
) -> None:
    switch(cluster.hosts, nf_call=nf_call)
    check(cells(cluster), protocol, MODES[nf_call])


def test_what_talks_goes_on_when_the_bridge_changes_its_mode(cluster: Cluster) -> None:
    switch(cluster.hosts, nf_call=False)
    cells = cluster_ips(cluster)
    with ExitStack() as stack:
        talks = [
            stack.enter_context(Talk(cell.name, cell.client, protocol, cell.address, cell.port))
            for cell in cells
            for protocol in PROTOCOLS
        ]
        for nf_call in (True, False, True):
            switch(cluster.hosts, nf_call=nf_call)
            mode, switched = MODES[nf_call], time.monotonic()
            for talk in talks:
                wait_until(f"{talk.name} goes on, {mode}", partial(talk.answered_since, switched), SHUT_SECONDS)
            for protocol in PROTOCOLS:
                check(cells, protocol, f"new while others talk, {mode}")
        broken = [f"{talk.name}: {talk.error}" for talk in talks if talk.error]
        shut = [f"{talk.name}: {talk.gap:.1f} s without an answer" for talk in talks if talk.gap > SHUT_SECONDS]
    assert not broken + shut, "\n".join(broken + shut)
