"""Ports, blocks, whose an address is, and what is not understood, with cells that were stated by hand."""

from __future__ import annotations

from typing import Any, Final

from tests.policy.objects import expressing, fields, home, nine, pod, policy, port, selecting
from tests.policy.spec.cluster import Json
from tests.policy.stated import ALL, stated

WEB: Final = [{"name": "web", "ports": [port("web", 80)]}]
OTHER_WEB: Final = [
    {"name": "web", "ports": [port("web", 81, "TCP")]},
    {"name": "w", "ports": [port("web", 80, "UDP")]},
]
ORDINARY: Final = {"name": "migrate", "ports": [port("web", 80, "TCP")]}
SIDECAR: Final = {"name": "mesh", "restartPolicy": "Always", "ports": [port("web", 81, "TCP")]}
BLOCK: Final[Json] = {"cidr": "10.32.0.0/16", "except": ["10.32.1.0/24", "10.32.2.22/32"]}
DOCUMENTED: Final = policy(
    "x",
    "test-network-policy",
    podSelector=selecting(role="db"),
    policyTypes=["Ingress", "Egress"],
    ingress=[
        {
            "from": [
                {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}},
                {"namespaceSelector": selecting(ns="y")},
                {"podSelector": selecting(role="frontend")},
            ],
            "ports": [{"protocol": "TCP", "port": 6379}],
        }
    ],
    egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"protocol": "TCP", "port": 5978}]}],
)


def one(key: str, *, at: tuple[str, ...] | None = None, **how: Any) -> Json:
    """One of the nine, but otherwise."""
    node, usual = home(key)
    return pod(key, node, usual if at is None else at, **({"labels": {"pod": key[2]}} | how))


def inward(where: str, *ports: Json, peers: Any = None) -> Json:
    return policy(where, podSelector=ALL, ingress=[{"from": peers, "ports": list(ports)}])


def outward(where: str, *ports: Json, peers: Any = None) -> Json:
    return policy(where, podSelector=ALL, policyTypes=["Egress"], egress=[{"to": peers, "ports": list(ports)}])


PORTS: Final = (
    stated(
        "the documentation's example",
        DOCUMENTED,
        pods=nine(x_a=one("x/a", labels={"role": "db"}), x_b=one("x/b", labels={"role": "frontend"})),
        may=(
            "172.17.2.1 > x/a TCP/6379, x/b > x/a TCP/6379, y/c > x/a TCP/6379, "
            "x/a > 10.0.0.9 TCP/5978, x/c > x/b TCP/1"
        ),
        may_not=(
            "172.17.1.1 > x/a TCP/6379, x/c > x/a TCP/6379, z/a > x/a TCP/6379, x/b > x/a TCP/6380, "
            "x/a > 10.0.1.9 TCP/5978, x/a > 10.0.0.9 UDP/5978, x/b > x/a UDP/6379, x/a > x/b TCP/5978"
        ),
    ),
    stated(
        "a range of ports, its ends included",
        outward(
            "x", {"protocol": "TCP", "port": 32000, "endPort": 32768}, peers=[{"ipBlock": {"cidr": "10.0.0.0/24"}}]
        ),
        inward("y", {"port": 80, "endPort": 80}, {"protocol": "UDP", "port": 65535, "endPort": 65535}),
        may=(
            "x/a > 10.0.0.1 TCP/32000, x/a > 10.0.0.1 TCP/32100, x/a > 10.0.0.1 TCP/32768, "
            "z/a > y/a TCP/80, z/a > y/a UDP/65535"
        ),
        may_not=(
            "x/a > 10.0.0.1 TCP/31999, x/a > 10.0.0.1 TCP/32769, x/a > 10.0.0.1 UDP/32000, "
            "z/a > y/a TCP/81, z/a > y/a TCP/79, z/a > y/a UDP/65534"
        ),
    ),
    stated(
        "without a protocol TCP, without a port all of its protocol, without ports everything",
        inward("x", {"port": 80}),
        inward("y", {"protocol": "SCTP"}, {"protocol": None, "port": 81, "endPort": None}),
        inward("z", {}),
        may=(
            "y/a > x/a TCP/80, x/a > y/a SCTP/80, x/a > y/a SCTP/9, x/a > y/a TCP/81, "
            "x/a > z/a TCP/1, x/a > z/a TCP/65535"
        ),
        may_not=(
            "y/a > x/a UDP/80, y/a > x/a SCTP/80, y/a > x/a TCP/81, y/a > x/a ICMP, "
            "x/a > y/a UDP/81, x/a > y/a TCP/80, x/a > z/a UDP/1, x/a > z/a ICMP"
        ),
    ),
    stated(
        "a named port is each destination's own, by protocol",
        inward("x", {"port": "web"}, {"port": "web", "protocol": "UDP"}),
        outward("y", {"port": "web"}),
        pods=nine(x_a=one("x/a", containers=WEB), x_b=one("x/b", containers=OTHER_WEB)),
        may="z/a > x/a TCP/80, z/a > x/b TCP/81, z/a > x/b UDP/80, y/a > x/a TCP/80, y/a > x/b TCP/81",
        may_not=(
            "z/a > x/a TCP/81, z/a > x/a UDP/80, z/a > x/b TCP/80, z/a > x/b UDP/81, "
            "z/a > x/c TCP/80, y/a > x/b TCP/80, y/a > z/a TCP/80, y/a > 203.0.113.9 TCP/80, "
            "y/a > n2 TCP/80"
        ),
    ),
    stated(
        "named ports of all containers and sidecars, not of those that have ended before",
        inward("x", {"port": "web", "protocol": "TCP"}),
        pods=nine(
            x_a=one("x/a", containers=[], init=[ORDINARY, SIDECAR]),
            x_b=one("x/b", containers=[{"name": "none"}, *WEB], init=[SIDECAR]),
            x_c=one("x/c", containers=[{"name": "null", "ports": None}], init=None),
        ),
        may="z/a > x/a TCP/81, z/a > x/b TCP/80, z/a > x/b TCP/81",
        may_not="z/a > x/a TCP/80, z/a > x/c TCP/80",
    ),
    stated(
        "a named port beside a block is that of the pod which has the address",
        outward("x", {"port": "serve-81-udp", "protocol": "UDP"}, peers=[{"ipBlock": {"cidr": "10.0.0.0/8"}}]),
        pods=nine(y_b=one("y/b", containers=[])),
        may="10.32.1.11 > y/a UDP/81",
        may_not=(
            "10.32.1.11 > y/a UDP/80, 10.32.1.11 > y/b UDP/81, 10.32.1.11 > 10.0.0.1 UDP/81, "
            "10.32.1.11 > 10.32.1.1 UDP/81"
        ),
    ),
)

ADDRESSES: Final = (
    stated(
        "a block matches pods too, less what is excepted",
        inward("x", peers=[{"ipBlock": BLOCK}]),
        outward("z", peers=[{"ipBlock": BLOCK}]),
        may=("10.32.2.12 > x/a TCP/80, 10.32.3.1 > x/a TCP/80, 10.32.3.31 > 10.32.2.12 TCP/80, 10.32.2.1 > x/a TCP/80"),
        may_not=(
            "10.32.1.23 > x/b TCP/80, 203.0.113.9 > x/a TCP/80, z/a > fd32::2:12 TCP/80, "
            "z/a > 203.0.113.9 TCP/1, z/a > 10.32.2.22 TCP/1, 10.32.2.22 > x/a TCP/1, "
            "fd32::2:12 > x/a TCP/80"
        ),
    ),
    stated(
        "what one block excepts another may permit",
        inward(
            "x",
            peers=[
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}},
                {"ipBlock": {"cidr": "203.0.113.8/29", "except": []}},
            ],
        ),
        may=("203.0.113.9 > x/a TCP/80, 198.51.100.7 > x/a TCP/80, 10.32.2.12 > x/a TCP/80, n3 > 10.32.1.11 TCP/80"),
        may_not="203.0.113.1 > x/a TCP/80, 2001:db8:51::7 > x/a TCP/80, fd02::3 > x/a TCP/80",
    ),
    stated(
        "blocks of the other family, and one that is written with its host's bits",
        inward(
            "x",
            peers=[
                {"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8:51::/64"]}},
                {"ipBlock": {"cidr": "198.51.100.7/24", "except": None}},
            ],
        ),
        inward("y", peers=[{"ipBlock": {"cidr": "::/0"}}]),
        may=("2001:db8:52::1 > x/a TCP/80, 198.51.100.200 > x/a TCP/80, fd32::1:11 > y/a TCP/80, fd02::2 > y/c UDP/1"),
        may_not=(
            "2001:db8:51::7 > x/a TCP/80, fd32::1:31 > x/a TCP/80, 10.32.1.11 > y/a TCP/80, 203.0.113.9 > y/a TCP/80"
        ),
    ),
    stated(
        "a pod's own node reaches it by all its addresses, and is but an address the other way",
        policy(
            "x",
            podSelector=ALL,
            policyTypes=["Ingress", "Egress"],
            ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.3/32"}}]}],
            egress=[{"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}],
        ),
        may=(
            "n1 > x/a TCP/80, n2 > x/b UDP/9, 192.0.2.3 > x/a TCP/80, 192.0.2.3 > x/b ICMP, "
            "10.32.1.11 > 192.0.2.1 UDP/53"
        ),
        may_not=(
            "n2 > x/a TCP/80, 10.32.3.1 > x/a TCP/80, fd02::3 > x/a TCP/80, x/a > n2 TCP/1, x/a > 10.32.1.1 UDP/53"
        ),
    ),
    stated(
        "pods on their node's network are no peers, and no targets",
        inward("x", peers=[{"namespaceSelector": ALL}]),
        policy("y", podSelector=ALL, policyTypes=["Ingress", "Egress"]),
        inward("z", peers=[{"ipBlock": {"cidr": "192.0.2.2/32"}}]),
        pods=nine(y_a=one("y/a", host_network=True, at=("192.0.2.2", "fd02::2"))),
        may="y/a > x/b TCP/80, x/a > y/a TCP/80, y/a > 203.0.113.9 TCP/80, 192.0.2.2 > z/a TCP/80",
        may_not="y/a > x/a TCP/80, 192.0.2.1 > z/a TCP/80, fd02::2 > z/a TCP/80",
    ),
    stated(
        "ended pods are no peers and no targets, and their addresses are addresses; others have theirs to the end",
        inward("x", peers=[{"podSelector": ALL}, {"namespaceSelector": selecting(ns="y")}]),
        policy("y", podSelector=ALL, ingress=[]),
        inward("z", peers=[{"ipBlock": {"cidr": "10.32.2.21/32"}}]),
        pods=nine(
            x_b=one("x/b", phase="Succeeded"),
            y_a=one("y/a", phase="Failed"),
            y_b=one("y/b", deleted="2024-05-01T11:00:00Z"),
            y_c=one("y/c", phase="Pending"),
        ),
        may=(
            "x/c > x/a TCP/80, y/b > x/a TCP/80, y/c > x/a TCP/80, x/a > y/a TCP/80, "
            "x/a > x/b TCP/1, z/a > x/b TCP/1, 10.32.2.21 > z/a TCP/80"
        ),
        may_not=(
            "x/b > x/a TCP/80, y/a > x/a TCP/80, z/a > x/a TCP/1, x/a > y/b TCP/80, x/a > y/c TCP/1, "
            "fd32::2:21 > z/a TCP/80"
        ),
    ),
    stated(
        "a reused address is the youngest's that has not ended",
        inward("x", peers=[{"podSelector": selecting(pod="new")}]),
        policy("y", podSelector=selecting(pod="b"), ingress=[]),
        pods=[
            *nine(x_b=one("x/b", created=5), y_b=one("y/b", created=9)),
            pod("x/d", *home("x/b"), created=7, labels={"pod": "new"}),
            pod("y/d", *home("y/b"), created=10, labels={}, phase="Succeeded"),
            pod("y/e", home("y/b")[0], home("x/c")[1], created=8, labels={"pod": "b"}),
        ],
        may="10.32.2.12 > x/a TCP/80, fd32::2:12 > x/a TCP/80",
        may_not="x/a > 10.32.3.22 TCP/80, 10.32.3.13 > x/a TCP/1, x/a > 10.32.3.13 TCP/1",
    ),
    stated(
        "a pod has but the addresses that its status has",
        inward("x", peers=[{"podSelector": ALL}]),
        pods=nine(
            x_a=one("x/a", at=("10.32.1.11",)),
            x_b=one("x/b", at=()),
            x_c={**one("x/c"), "status": {"phase": "Running", "podIP": "10.32.3.13"}},
        ),
        may=(
            "10.32.1.11 > 10.32.3.13 TCP/80, y/a > fd32::1:11 TCP/80, y/a > 10.32.2.12 TCP/80, y/a > fd32::3:13 TCP/80"
        ),
        may_not=("10.32.2.12 > 10.32.1.11 TCP/80, 10.32.2.12 > 10.32.3.13 TCP/80, 10.32.2.21 > 10.32.1.11 TCP/80"),
    ),
)


def broken(where: str, name: str, *rules: Any) -> Json:
    return policy(where, name, podSelector=ALL, policyTypes=["Ingress"], ingress=list(rules))


BAD_PEERS: Final[tuple[Any, ...]] = (
    {},
    {"futureSelector": {}},
    {"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}},
    *({"ipBlock": {"cidr": text}} for text in ("", None, "203.0.113.9", "0.0.0.0/33", "0.0.0.0/0.0.0.0", "every/0")),
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["198.51.100.0"]}},
    {"podSelector": expressing("pod", "In")},
    {"podSelector": expressing("pod", "Exists", "a")},
    {"podSelector": expressing("pod", "Gt", "1")},
    {"namespaceSelector": expressing("team", "notin", "red")},
    {"namespaceSelector": {}, "podSelector": expressing("", "DoesNotExist")},
)
BAD_PORTS: Final[tuple[Json, ...]] = (
    *({"port": number} for number in (0, -1, 65536, "80", "", "WEB", "much-too-long-name")),
    {"endPort": 90},
    {"port": "web", "endPort": 90},
    {"port": 81, "endPort": 80},
    {"port": 80, "endPort": 65536},
    *({"protocol": text, "port": 80} for text in ("tcp", "ICMP", "")),
)
BAD_SELECTORS: Final[tuple[Json, ...]] = (
    expressing("pod", "In"),
    expressing("pod", "Is", "a"),
    fields(matchExpressions=[{"key": "pod"}]),
)
GOOD_PEER: Final = {"podSelector": selecting(pod="b")}
GOOD_PORT: Final = {"port": 80}
FAULTS: Final = (
    *(
        stated(
            f"a peer that is not understood: {bad}",
            broken("x", "p", {"from": [GOOD_PEER, bad]}, {"from": [{"podSelector": selecting(pod="c")}]}),
            may="x/c > x/a TCP/80, n1 > x/a TCP/80",
            may_not="x/b > x/a TCP/80, y/a > x/a TCP/80, 203.0.113.9 > x/a TCP/80",
        )
        for bad in BAD_PEERS
    ),
    *(
        stated(
            f"a port that is not understood: {bad}",
            broken("x", "p", {"ports": [GOOD_PORT, bad]}, {"ports": [{"port": 81, "protocol": "UDP"}]}),
            may="y/a > x/a UDP/81",
            may_not="y/a > x/a TCP/80, y/a > x/a TCP/81, y/a > x/a UDP/80, y/a > x/a TCP/90",
        )
        for bad in BAD_PORTS
    ),
    *(
        stated(
            f"a podSelector that is not understood isolates its namespace, and permits nothing: {bad}",
            policy("x", podSelector=bad, policyTypes=["Ingress"], ingress=[ALL]),
            policy("x", "other", podSelector=selecting(pod="a"), ingress=[{"from": [GOOD_PEER]}]),
            may="x/b > x/a TCP/80, x/a > y/a TCP/80, z/a > y/a TCP/80",
            may_not="y/a > x/a TCP/80, y/a > x/c TCP/80, x/a > x/c TCP/80",
        )
        for bad in BAD_SELECTORS
    ),
)
