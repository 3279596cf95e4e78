"""A thousand policies and ten thousand pods: how soon they are in force, what one more pod costs, and what each packet.

Law: the policies are all in use on the node that is measured, and select among all pods. Throughput is a ratio of runs
that alternate within minutes; what is removed and put back between them is the table itself.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from random import Random
from statistics import median
from typing import Any, Final

import pytest

from tests.policy.cluster import NAMESPACES, NETWORKING, Cluster, Pod, cluster
from tests.policy.probing import Prober
from tunrouter.bench import instruments
from tunrouter.bench.contender import End
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.policy.nftables import FAMILY, TABLE
from tunrouter.edge import netns
from tunrouter.edge.processes import used

pytestmark = [pytest.mark.root, pytest.mark.soak, pytest.mark.alone, pytest.mark.timeout(900)]
PODS: Final = 10_000
POLICIES: Final = 1_000
SPACES: Final = 50
ROUNDS: Final = 12
SECONDS: Final = 3
Json = dict[str, Any]


@pytest.fixture(scope="module")
def large() -> Iterator[Cluster]:
    with cluster() as found:
        for number in range(SPACES):
            found.label_namespace(f"ns{number}", team=f"team{number % 10}")
        for number in range(PODS):
            found.plant(_pod(number))
        for each in _policies(Random(1)):
            found.plant(each)
        yield found


def _pod(number: int, **labels: str) -> Json:
    """Of nodes that are not in the lab."""
    metadata = {"name": f"pod{number}", "namespace": f"ns{number % SPACES}",
                "labels": {"app": f"app{number % 200}", "tier": f"tier{number % 5}", **labels}}  # fmt: skip
    containers = [{"name": "main", "image": "example/main", "ports": [{"name": "http", "containerPort": 8080}]}]
    high, low = divmod(number, 250)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"nodeName": f"node{number // 100}", "containers": containers},
            "status": {"phase": "Running", "podIP": f"10.{40 + high // 250}.{high % 250}.{low + 2}"}}  # fmt: skip


def _policies(random: Random) -> Iterator[Json]:
    """Four of five for all pods of x, y and z, the others for one of them."""
    for number in range(POLICIES):
        app = {"podSelector": {"matchLabels": {"app": f"app{random.randrange(200)}"}},
               "namespaceSelector": {"matchLabels": {"team": f"team{random.randrange(10)}"}}}  # fmt: skip
        tier = {
            "podSelector": {"matchLabels": {"tier": f"tier{random.randrange(5)}"}},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": f"ns{random.randrange(SPACES)}"}},
        }
        block = {"ipBlock": {"cidr": f"172.{random.randrange(16, 32)}.0.0/16"}}
        peers = random.sample((app, tier, block), 2)
        ports = random.choice(([{"port": 80}, {"port": "http"}], [{"port": 8000, "endPort": 8100}], None))
        rule = {"ports": ports} if ports else {}
        selector = {"matchLabels": {"pod": random.choice("abc")}} if number % 5 == 0 else {}
        spec: Json = {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{**rule, "from": peers}]}
        if number % 2:
            spec |= {"policyTypes": ["Ingress", "Egress"], "egress": [{**rule, "to": peers}]}
        yield {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "spec": spec,
               "metadata": {"name": f"policy{number}", "namespace": NAMESPACES[number % 3]}}  # fmt: skip


def test_all_of_it_is_in_force_within_five_seconds(large: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    npc, host = large.npcs[0], large.hosts[0]
    npc.stop()
    began = time.monotonic()
    npc.start()
    took = time.monotonic() - began
    table = npc.table()
    assert table is not None
    assert len(table.policies) >= POLICIES
    assert sum(row.here > 0 for row in table.policies) >= 0.9 * POLICIES
    assert npc.process is not None
    nft, resident = npc.metrics()["tunrouter_npc_transaction_seconds_total"], used(npc.process.pid).resident_bytes
    elements = host.namespace.run("nft", "list", "table", FAMILY, TABLE).stdout.count(",")
    with capsys.disabled():
        print(f"\nin force after {took:.2f} s, nft {nft:.2f} s, RSS {resident / 2**20:.0f} MiB, {elements} elements")  # noqa: T201
    assert took <= 5
    assert nft <= 1
    assert resident <= 200 << 20


def test_one_more_pod_and_one_more_permission_take_effect_in_a_tenth_of_a_second(
    large: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    source, destination = large.pods["z/a"], large.pods["z/c"]
    selector, peer = {"matchLabels": {"pod": "c"}}, {"podSelector": {"matchLabels": {"may": "yes"}}}
    for way in ("ingress", "egress"):
        spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{}]}
        spec = spec if way == "egress" else {"podSelector": selector, "ingress": [{"from": [peer]}]}
        large.plant({"apiVersion": NETWORKING, "kind": "NetworkPolicy", "spec": spec,
                     "metadata": {"name": f"may-{way}", "namespace": "z"}})  # fmt: skip
    rows = {("z", "may-ingress"), ("z", "may-egress")}
    wait_until("they are in force", lambda: _knows(large, rows), 10)
    with Prober(large.places):
        took = [_until_open(large, source, destination) for _ in range(7)]
    latency = [_addition(large, number) for number in range(5)]
    with capsys.disabled():
        told = " ".join(f"{1000 * each:.0f}" for each in took), " ".join(f"{1000 * each:.0f}" for each in latency)
        print(f"\na label takes effect after {told[0]} ms; ADD takes {told[1]} ms")  # noqa: T201
    assert median(took) <= 0.1


def _knows(large: Cluster, rows: set[tuple[str, str]]) -> bool:
    table = large.npcs[0].table()
    return table is not None and table.in_force and rows <= {(row.namespace, row.name) for row in table.policies}


def _until_open(large: Cluster, source: Pod, destination: Pod) -> float:
    """From the API's answer to the first datagram that comes back, asked every two milliseconds."""
    large.label_pod(source.key, pod="a")
    wait_until("it is closed", lambda: not _echo(source, destination, 0.05), 10)
    large.label_pod(source.key, pod="a", may="yes")
    began = time.monotonic()
    wait_until("it is open", lambda: _echo(source, destination, 0.002), 10, pause=0)
    return time.monotonic() - began


def _echo(source: Pod, destination: Pod, seconds: float) -> bool:
    with netns.Namespace(str(source.attached.namespace.path)) as entered:
        asking = netns.within(entered, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with asking:
        asking.settimeout(seconds)
        asking.sendto(b"?", (destination.address, 80))
        try:
            return bool(asking.recv(100))
        except TimeoutError:
            return False


def _addition(large: Cluster, number: int) -> float:
    """The runtime's ADD of a pod, of which the plugin's own start is a part."""
    began = time.monotonic()
    pod = large.add_pod("z", f"more{number}", large.hosts[0], told=False)
    took = time.monotonic() - began
    large.delete_pod(pod)
    return took


def test_what_is_forwarded_costs_less_than_a_twentieth_more(large: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Streams between pods of two nodes, through the tunnel, and of one, through its kernel alone."""
    for name in ("in", "out"):
        spec = {"podSelector": {}, "ingress": [{}], "egress": [{}], "policyTypes": ["Ingress", "Egress"]}
        for namespace in NAMESPACES:
            large.plant({"apiVersion": NETWORKING, "kind": "NetworkPolicy", "spec": spec,
                         "metadata": {"name": f"zz-all-{name}", "namespace": namespace}})  # fmt: skip
    wait_until("they are in force", lambda: _knows(large, {("z", "zz-all-in"), ("z", "zz-all-out")}), 10)
    host = large.hosts[0]
    for npc in large.npcs:
        npc.stop()
    saved = {each: each.namespace.run("nft", "list", "table", FAMILY, TABLE).stdout for each in large.hosts}
    ways = {"between nodes": ("x/a", "x/b"), "on a node": ("x/a", "x/c")}
    found: dict[tuple[str, bool], list[float]] = {}
    for number in range(ROUNDS):
        # Which comes first alternates: machines grow warm, and others come and go.
        for with_policies in (False, True) if number % 2 else (True, False):
            for each, text in saved.items():
                none = f"table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n"
                each.namespace.run("nft", "-f", "-", stdin=none + (text if with_policies else ""))
            for way, (client, server) in ways.items():
                stream = instruments.tcp(_end(large.pods[client]), _end(large.pods[server]), seconds=SECONDS)
                found.setdefault((way, with_policies), []).append(stream.mbits)
    pairs = {way: zip(found[way, True], found[way, False], strict=True) for way in ways}
    ratios = {way: median(some / none for some, none in pairs[way]) for way in ways}
    with capsys.disabled():
        told = ", ".join(f"{way} {ratio:.3f} ({median(found[way, True]):.0f} Mbit/s)" for way, ratio in ratios.items())
        print(f"\nthroughput with policies over that without: {told}; {host} and its like")  # noqa: T201
    assert ratios["between nodes"] >= 0.95


def _end(pod: Pod) -> End:
    return End(pod.attached.namespace, pod.address)
