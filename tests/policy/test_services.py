"""Every cell of the tables in docs/policy.md, probed beside kube-proxy and portmap, in both modes of the bridge.

Law: what is expected is read from the document, so that neither can be changed without the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from tests.e2e.services import switch
from tests.policy import proxy
from tests.policy.cluster import NETWORKING, OUTSIDE, OUTSIDE_ADDRESS, RANGE, Cluster
from tests.policy.probing import PROTOCOLS, Cell, Prober
from tests.policy.tables import Table, table

pytestmark = pytest.mark.root

SEEN = table("Which ipBlock lets it in")
DENY_INGRESS = table("Default-deny ingress")
DENY_EGRESS = table("Default-deny egress")
LEAVES = table("Which ipBlock lets it out")
ENDPOINT, NEAR, FAR = "x/a", "x/c", "x/b"
Json = dict[str, Any]
CLIENTS: Final = {
    "pod of the own node": NEAR,
    "pod of the other node": FAR,
    "the own node": "host1",
    "the other node": "host2",
    "host-network pod of the own node": "host1",
    "host-network pod of the other node": "host2",
    "outside": OUTSIDE,
    "the endpoint itself": ENDPOINT,
}


class Services:
    def __init__(self, found: Cluster, prober: Prober) -> None:
        self.cluster = found
        self._prober = prober
        one, two = found.hosts
        endpoint = found.pods[ENDPOINT].address
        for host in found.hosts:
            proxy.serve(host, endpoint, RANGE, local=host is one)
        self._ways = {
            "pod IP": (endpoint, proxy.ENDPOINT_PORT),
            "ClusterIP": (proxy.CLUSTER_IP, proxy.SERVICE_PORT),
            "NodePort, own": (one.address, proxy.NODE_PORT),
            "NodePort, other": (two.address, proxy.NODE_PORT),
            "Local, own": (one.address, proxy.LOCAL_NODE_PORT),
            "Local, other": (two.address, proxy.LOCAL_NODE_PORT),
            "hostPort": (one.address, proxy.HOST_PORT),
        }
        self.node, self.bridge = two.address, found.bridge(two)

    def check(self, what: str, expected: Mapping[tuple[str, str], bool]) -> None:
        """For every protocol; names those that are wrong."""
        cells: dict[Cell, bool] = {}
        names: dict[Cell, str] = {}
        for (client, way), is_open in expected.items():
            for protocol in PROTOCOLS:
                address, port = self._ways[way]
                cell = Cell(CLIENTS[client], address, protocol, port)
                assert cells.setdefault(cell, is_open) == is_open, "a host-network pod is its node"
                names[cell] = f"{client} by {way}, {protocol}"
        wrong = self._prober.wrong(cells)
        assert not wrong, f"{what}: " + "; ".join(
            f"{names[cell]} is {'open' if is_open else 'closed'}" for cell, is_open in wrong.items()
        )

    def source(self, client: str, seen: str) -> str:
        """The address that a word of the table means."""
        if seen != "client":
            return {"node": self.node, "bridge": self.bridge}.get(seen, "")
        return OUTSIDE_ADDRESS if client == "outside" else self.cluster.pods[CLIENTS[client]].address


@pytest.fixture(scope="module", params=[True, False], ids=["nf-call", "no-nf-call"])
def services(request: pytest.FixtureRequest, live: tuple[Cluster, Prober]) -> Iterator[Services]:
    found, prober = live
    switch(found.hosts, nf_call=request.param)
    for host in found.hosts:
        found.plant(host_network_pod(host.name, host.address))
    found.outside.ip(f"route replace {proxy.CLUSTER_IP} via {found.hosts[0].address}")
    yield Services(found, prober)
    for host in found.hosts:
        host.namespace.run("nft", "delete", "table", "ip", "services")
        found.scene.control.do("remove", api_version="v1", kind="Pod", name=f"on-{host.name}", namespace="x")


def host_network_pod(node: str, address: str) -> Json:
    """With the labels of pods that policies permit."""
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": f"on-{node}", "namespace": "x", "labels": {"pod": "b"}},
            "spec": {"nodeName": node, "hostNetwork": True,
                     "containers": [{"name": "main", "image": "example/main"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}  # fmt: skip


def policy(name: str, labels: dict[str, str], **directions: list[Json]) -> Json:
    types = [direction.capitalize() for direction in directions]
    return {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "x"},
            "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": types,
                     **{direction: rules for direction, rules in directions.items() if rules}}}  # fmt: skip


def blocks(*addresses: str) -> list[Json]:
    return [{"ipBlock": {"cidr": f"{address}/32"}} for address in addresses]


def test_the_tables_have_the_same_rows_and_columns_and_agree() -> None:
    assert SEEN.keys() == DENY_INGRESS.keys() == DENY_EGRESS.keys()
    assert {client for client, _ in SEEN} == CLIENTS.keys()
    assert set(SEEN.values()) == {"always", "client", "bridge", "node", "-"}
    assert set(LEAVES.values()) == {"always", "endpoint", "own", "other", "-"}
    for cell, seen in SEEN.items():
        assert DENY_INGRESS[cell] == ("yes" if seen == "always" else "no"), cell
        passes = seen != "-" and LEAVES.get(cell, "always") == "always"
        assert DENY_EGRESS[cell] == ("yes" if passes else "no"), cell


def test_without_policies_all_that_arrives_at_all_is_open(services: Services) -> None:
    services.cluster.enforce()
    services.check("no policy", {cell: seen != "-" for cell, seen in SEEN.items()})


def test_default_deny_ingress(services: Services) -> None:
    services.cluster.enforce(policy("deny-ingress", {"pod": "a"}, ingress=[]))
    services.check("default-deny ingress", yes(DENY_INGRESS))


def test_default_deny_egress(services: Services) -> None:
    services.cluster.enforce(policy("deny-egress", {}, egress=[]))
    services.check("default-deny egress", yes(DENY_EGRESS))


def test_which_ip_block_lets_it_in(services: Services) -> None:
    """Each address alone lets in those who have it, and nobody else."""
    sources = {services.source(client, seen) for (client, _), seen in SEEN.items()} - {""}
    assert len(sources) == 5
    for at, address in enumerate(sorted(sources)):
        services.cluster.enforce(policy(f"in-{at}", {"pod": "a"}, ingress=[{"from": blocks(address)}]))
        services.check(f"from {address}", {
            (client, way): seen == "always" or services.source(client, seen) == address
            for (client, way), seen in SEEN.items()
        })  # fmt: skip


def test_selectors_let_in_pods_that_are_seen_as_themselves(services: Services) -> None:
    services.cluster.enforce(policy("in-pods", {"pod": "a"}, ingress=[{"from": [{"namespaceSelector": {}}]}]))
    services.check("from all pods", {
        (client, way): seen == "always" or (seen == "client" and client != "outside")
        for (client, way), seen in SEEN.items()
    })  # fmt: skip


def test_which_ip_block_lets_it_out(services: Services) -> None:
    one, two = services.cluster.hosts
    addresses = {"endpoint": services.cluster.pods[ENDPOINT].address, "own": one.address, "other": two.address}
    for seen, address in addresses.items():
        services.cluster.enforce(policy(f"out-{seen}", {}, egress=[{"to": blocks(address)}]))
        services.check(f"to {seen}", {cell: said in ("always", seen) for cell, said in LEAVES.items()})
    services.cluster.enforce(
        policy("out-selected", {}, egress=[{"to": [{"podSelector": {"matchLabels": {"pod": "a"}}}]}])
    )
    services.check("to the pod", {cell: said in ("always", "endpoint") for cell, said in LEAVES.items()})


def yes(said: Table) -> dict[tuple[str, str], bool]:
    assert set(said.values()) == {"yes", "no"}
    return {cell: word == "yes" for cell, word in said.items()}
