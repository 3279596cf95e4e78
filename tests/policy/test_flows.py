"""Connections under policies: what is permitted survives restarts and edits, and what an edit forbids ends soon.

Law: flows are opened under policies that permit them, so that they pass by a rule and not for want of one.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count

import pytest

from tests.policy import proxy
from tests.policy.cluster import RANGE, Cluster, Json
from tests.policy.flows import FIRST_PORT, KINDS, Flow, Kind
from tests.policy.probing import Prober
from tests.policy.written import ALL, EVERY, block, pods, policy
from tunrouter.bench.namespaces import Namespace, wait_until
from tunrouter.edge import netns

pytestmark = pytest.mark.root

SERVED = 8000
CUT_SECONDS = 2.0
SHUT_SECONDS = 1.0
"""An edit or a restart of npc touches no packet; machines are busy."""
AGENT_SECONDS = 15.0
"""A tunnel may be silent while both its agents start again, and TCP takes its time after that."""
SERVER, NEAR, FAR, OTHER = "x/a", "y/b", "y/a", "z/b"
"""The first two on the first node, the others on the second."""
DENY = policy("x", ALL, "deny", EVERY)
FROM_Y = policy("x", ALL, "in", ingress=[{"from": [{"namespaceSelector": pods(ns="y")}]}])
FROM_Z = policy("x", ALL, "in", ingress=[{"from": [{"namespaceSelector": pods(ns="z")}]}])
_ports = count(FIRST_PORT)


@pytest.fixture(scope="module")
def found(live: tuple[Cluster, Prober]) -> Iterator[Cluster]:
    """With a Service."""
    found, _ = live
    for host in found.hosts:
        proxy.serve(host, found.addresses[SERVER], RANGE, local=host is found.hosts[0], port=SERVED)
    yield found
    for host in found.hosts:
        host.namespace.run("nft", "delete", "table", "ip", "services")


@contextmanager
def flowing(found: Cluster, *clients: str, kinds: tuple[Kind, ...] = KINDS) -> Iterator[list[Flow]]:
    """To the server, of each kind from each of these."""
    server = found.pods[SERVER]
    with closing_all() as flows:
        for client in clients:
            for kind in kinds:
                flows.append(
                    Flow(client, kind, found.places[client], found.places[SERVER], server.address, next(_ports))
                )
        yield flows


def restart_npc(found: Cluster, end: str) -> None:
    for npc in found.npcs:
        npc.kill() if end == "killed" else npc.stop()
        npc.start(wait=False)
    found.wait_in_force(20)


def restart_agents(found: Cluster, end: str) -> None:
    for host in found.hosts:
        host.agent.kill() if end == "killed" else host.agent.leave()
        host.agent.restart(wait=False)
    for host in found.hosts:
        host.agent.wait_ready()
        host.agent.wait_established(1)


Disturbance = tuple[Callable[[Cluster], object], float]
DISTURBANCES: dict[str, Disturbance] = {
    "npc is ended and started": (partial(restart_npc, end="ended"), SHUT_SECONDS),
    "npc is killed and started": (partial(restart_npc, end="killed"), SHUT_SECONDS),
    "an edit permits them by pods": (
        lambda found: found.enforce(DENY, policy("x", ALL, "in", ingress=[{"from": [
            {"namespaceSelector": pods(ns="y"), "podSelector": ALL}]}])), SHUT_SECONDS),
    "an edit permits them by addresses": (
        lambda found: found.enforce(DENY, policy("x", ALL, "in", ingress=[{"from": [
            block(f"{found.addresses[client]}/32") for client in (NEAR, FAR)]}])), SHUT_SECONDS),
    "another policy permits them": (
        lambda found: found.enforce(DENY, policy("x", ALL, "all", ingress=[ALL])), SHUT_SECONDS),
    "no policy is there any more": (lambda found: found.enforce(), SHUT_SECONDS),
    "there are policies again": (lambda found: found.enforce(DENY, FROM_Y), SHUT_SECONDS),
    "the agents are ended and started": (partial(restart_agents, end="ended"), AGENT_SECONDS),
}  # fmt: skip


def test_what_is_permitted_survives(found: Cluster) -> None:
    survive(found, DISTURBANCES)


@pytest.mark.soak
def test_what_is_permitted_survives_agents_that_are_killed(found: Cluster) -> None:
    survive(found, {"the agents are killed and started": (partial(restart_agents, end="killed"), AGENT_SECONDS)})


def survive(found: Cluster, disturbances: Mapping[str, Disturbance]) -> None:
    found.enforce(DENY, FROM_Y)
    with flowing(found, NEAR, FAR) as flows:
        for what, (disturb, seconds) in disturbances.items():
            began = time.monotonic()
            disturb(found)
            done = time.monotonic()
            for flow in flows:
                wait_until(f"{flow.name} goes on: {what}", partial(flow.heard_since, done), seconds + 1)
            silent = {flow.name: round(flow.gap(began), 2) for flow in flows if flow.gap(began) > seconds}
            assert not silent, f"{what}: {silent}"


FORBID: dict[str, list[Json]] = {
    "ingress of the server": [DENY, FROM_Z],
    "egress of the clients": [policy("y", ALL, "out", ("Egress",))],
}


@pytest.mark.parametrize("how", FORBID)
def test_what_an_edit_forbids_is_cut_and_nothing_else(found: Cluster, how: str) -> None:
    """On one node and between two; what the own node has opened, and others, go on."""
    found.enforce(DENY, policy("x", ALL, "in", ingress=[{"from": [{"namespaceSelector": asking_for("y", "z")}]}]))
    with flowing(found, NEAR, FAR) as forbidden, flowing(found, OTHER, found.hosts[0].name) as permitted:
        began = time.monotonic()
        found.apply(*FORBID[how])
        check_cut(forbidden, began)
        silent = {flow.name: round(flow.gap(began), 2) for flow in permitted if flow.gap(began) > SHUT_SECONDS}
        assert not silent, silent
        found.wait_in_force()


def test_what_was_forbidden_while_npc_was_away_is_cut_when_it_is_back(found: Cluster) -> None:
    found.enforce(DENY, FROM_Y)
    with flowing(found, NEAR, kinds=("tcp", "udp")) as flows:
        for npc in found.npcs:
            npc.kill()
        found.apply(DENY, FROM_Z)
        for npc in found.npcs:
            npc.start(wait=False)
        found.wait_in_force(20)
        check_cut(flows, time.monotonic())


def test_what_came_by_a_service_is_cut_too(found: Cluster) -> None:
    """By ClusterIP, and masqueraded by a NodePort: the policy was about the client, and so is the end."""
    found.enforce(DENY, FROM_Y)
    server, client = found.places[SERVER], found.places[NEAR]
    ways: list[tuple[Kind, str, int]] = [
        ("tcp", proxy.CLUSTER_IP, proxy.SERVICE_PORT),
        ("udp", found.hosts[0].address, proxy.NODE_PORT),
    ]
    with closing_all() as flows:
        for kind, address, port in ways:
            flows.append(Flow(f"by {address}", kind, client, server, address, port, SERVED))
        began = time.monotonic()
        found.apply(DENY, FROM_Z)
        check_cut(flows, began)
        found.wait_in_force()


def test_a_new_pod_inherits_no_connection_of_its_address(live: tuple[Cluster, Prober], found: Cluster) -> None:
    """Who was answered by an earlier pod goes on asking, and the new one is isolated."""
    found.enforce(DENY)
    host, client = found.hosts[0], found.places[NEAR]
    old = found.add_pod("z", "old", host)
    with closing_all() as flows:
        flow = Flow("of the old pod", "udp", client, old.attached.namespace, old.address, next(_ports))
        flows.append(flow)
        found.delete_pod(old)
        new = found.add_pod("x", "new", host, address=old.address)
        began = time.monotonic()
        with counting(new.attached.namespace, flow.port) as heard:
            wait_until("it is cut", lambda: time.monotonic() > began + CUT_SECONDS + 1.0, CUT_SECONDS + 2)
        assert not [one for one in heard if one > began + CUT_SECONDS]
    found.delete_pod(new)


@contextmanager
def counting(namespace: Namespace, port: int) -> Iterator[list[float]]:
    """When datagrams came."""
    with netns.Namespace(str(namespace.path)) as entered:
        opened = netns.within(entered, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    opened.bind(("", port))
    opened.settimeout(0.05)
    heard: list[float] = []
    over = threading.Event()

    def hear() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                opened.recv(100)
                heard.append(time.monotonic())

    thread = threading.Thread(target=hear)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join()
        opened.close()


def check_cut(flows: Iterable[Flow], began: float) -> None:
    for flow in flows:
        wait_until(f"{flow.name} ends", flow.ended, CUT_SECONDS + 2)
    late = {flow.name: round(flow.heard[-1] - began, 2) for flow in flows if flow.heard[-1] > began + CUT_SECONDS}
    assert not late, late


@contextmanager
def closing_all() -> Iterator[list[Flow]]:
    flows: list[Flow] = []
    try:
        yield flows
    finally:
        for flow in flows:
            flow.close()


def asking_for(*namespaces: str) -> Json:
    return {"matchExpressions": [{"key": "ns", "operator": "In", "values": list(namespaces)}]}
