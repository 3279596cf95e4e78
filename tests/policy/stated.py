"""Policies of the API's documentation and of its corners, with cells that were stated by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tests.policy.objects import NODES, expressing, namespace, nine, policy, selecting, three
from tests.policy.spec.cluster import Cluster, Json

ALL: Final[Json] = {}
"""A selector without requirements, or a rule without restrictions."""
ONLY_X: Final[Json] = {"from": [{"namespaceSelector": selecting(ns="x")}]}
LOGS: Final = policy("x", podSelector=selecting(pod="a"), policyTypes=["Ingress"], ingress=[ONLY_X])


class Stated(NamedTuple):
    name: str
    cluster: Cluster
    may: str
    """Cells, with commas between them."""
    may_not: str


def stated(
    name: str, *policies: Json, may: str = "", may_not: str = "", pods: Any = None, namespaces: Any = None
) -> Stated:
    cluster = Cluster(nine() if pods is None else pods, three() if namespaces is None else namespaces, policies, NODES)
    return Stated(name, cluster, may, may_not)


def statements(text: str) -> Sequence[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


DEFAULTS: Final = (
    stated(
        "no policy",
        may=("x/a > x/b TCP/80, x/a > z/c UDP/1, 203.0.113.9 > x/a SCTP/81, x/a > n2 ICMP, n2 > x/a TCP/1"),
    ),
    stated(
        "default deny all ingress",
        policy("x", podSelector=ALL, policyTypes=["Ingress"]),
        may=("x/a > y/a TCP/80, y/a > z/b UDP/81, x/a > x/a TCP/80, n1 > x/a TCP/80, x/a > 203.0.113.9 TCP/443"),
        may_not=("x/b > x/a TCP/80, y/a > x/a UDP/80, n2 > x/a TCP/80, 203.0.113.9 > x/a TCP/80, y/b > x/c ICMP"),
    ),
    stated(
        "allow all ingress, beside a default deny",
        policy("x", "deny", podSelector=ALL, policyTypes=["Ingress"]),
        policy("x", "allow", podSelector=ALL, policyTypes=["Ingress"], ingress=[ALL]),
        may=("x/b > x/a TCP/80, y/a > x/a SCTP/1, n2 > x/a TCP/80, 203.0.113.9 > x/a TCP/80, y/a > x/c ICMP"),
    ),
    stated(
        "default deny all egress",
        policy("x", podSelector=ALL, policyTypes=["Egress"]),
        may="y/a > x/a TCP/80, x/a > x/a UDP/80, 203.0.113.9 > x/a TCP/80, n2 > x/a TCP/80",
        may_not=("x/a > x/b TCP/80, x/a > y/a UDP/53, x/a > n1 UDP/53, x/a > n2 TCP/1, x/a > 203.0.113.9 ICMP"),
    ),
    stated(
        "allow all egress, beside a default deny",
        policy("x", "deny", podSelector=ALL, policyTypes=["Egress"]),
        policy("x", "allow", podSelector=ALL, policyTypes=["Egress"], egress=[ALL]),
        may="x/a > x/b TCP/80, x/a > 203.0.113.9 ICMP, x/a > n1 UDP/53",
    ),
    stated(
        "default deny all of both",
        policy("x", podSelector=ALL, policyTypes=["Ingress", "Egress"]),
        may="x/a > x/a TCP/80, n1 > x/a TCP/80, y/a > z/a TCP/80",
        may_not="x/a > y/a TCP/80, y/a > x/a TCP/80, x/a > x/b TCP/80, x/a > n1 TCP/80",
    ),
    stated(
        "policyTypes absent: ingress, and egress if there is a rule",
        policy("x", podSelector=selecting(pod="a"), egress=[{"ports": [{"port": 80}]}]),
        policy("y", podSelector=selecting(pod="a"), egress=[]),
        policy("z", podSelector=selecting(pod="a"), policyTypes=[], egress=None),
        may="x/a > x/b TCP/80, y/a > x/b UDP/81, z/a > x/b UDP/81, x/b > y/b TCP/80",
        may_not="x/a > x/b TCP/81, x/b > x/a TCP/80, x/b > y/a TCP/80, x/b > z/a TCP/80",
    ),
    stated(
        "policyTypes decide, whatever sections there are",
        policy("x", podSelector=ALL, policyTypes=["Egress"], ingress=[], egress=[ALL]),
        policy("y", podSelector=ALL, policyTypes=["Ingress"], ingress=[ALL], egress=[]),
        may="y/a > x/a TCP/80, x/a > y/a TCP/80, y/a > z/a UDP/1",
    ),
    stated(
        "a section that is for no type permits nothing and isolates nothing",
        policy("x", "out", podSelector=ALL, policyTypes=["Egress"], ingress=[ALL]),
        policy("x", "in", podSelector=ALL, policyTypes=["Ingress"], egress=[ALL]),
        may_not="y/a > x/a TCP/80, x/a > y/a TCP/80",
    ),
    stated(
        "podSelector absent selects all, and so does an empty one",
        policy("x", ingress=[]),
        policy("y", podSelector=None, ingress=None),
        policy("z", podSelector={"matchLabels": None, "matchExpressions": []}),
        may="x/a > x/a TCP/80",
        may_not="z/a > x/a TCP/80, z/a > y/b TCP/80, x/a > z/c TCP/80",
    ),
    stated(
        "peers and ports that are empty, null or absent restrict nothing",
        policy("x", podSelector=ALL, ingress=[{"from": [], "ports": [{"port": 80}]}]),
        policy("y", podSelector=ALL, ingress=[{"from": None, "ports": None}]),
        policy("z", podSelector=ALL, ingress=[{"from": [{"podSelector": ALL}], "ports": []}]),
        may=("y/a > x/a TCP/80, 203.0.113.9 > x/a TCP/80, x/a > y/a ICMP, z/b > z/a SCTP/7, z/b > z/a ICMP"),
        may_not="y/a > x/a TCP/81, y/a > x/a UDP/80, x/a > z/a TCP/80, 203.0.113.9 > z/a TCP/80",
    ),
    stated(
        "several policies add up, in each direction by itself",
        policy("x", "one", podSelector=selecting(pod="a"), ingress=[{"ports": [{"port": 80}]}]),
        policy("x", "two", podSelector=ALL, ingress=[{"ports": [{"port": 81}]}]),
        policy("y", "out", podSelector=ALL, policyTypes=["Egress"], egress=[{"ports": [{"port": 81}]}]),
        may="z/a > x/a TCP/80, z/a > x/a TCP/81, z/a > x/b TCP/81, y/a > x/a TCP/81",
        may_not="z/a > x/b TCP/80, y/a > x/a TCP/80, z/a > x/a UDP/81, y/a > z/a TCP/80",
    ),
    stated(
        "an allowance of one end is none of the other",
        policy("x", podSelector=ALL, policyTypes=["Egress"]),
        policy("y", podSelector=ALL, policyTypes=["Ingress"], ingress=[ALL]),
        may="z/a > y/a TCP/80",
        may_not="x/a > y/a TCP/80",
    ),
)

SELECTORS: Final = (
    stated(
        "one item with both selectors: pods of these namespaces",
        policy(
            "x",
            podSelector=selecting(pod="a"),
            ingress=[{"from": [{"namespaceSelector": selecting(ns="y"), "podSelector": selecting(pod="b")}]}],
        ),
        may="y/b > x/a TCP/80",
        may_not="y/a > x/a TCP/80, x/b > x/a TCP/80, z/b > x/a TCP/80, y/c > x/a TCP/80",
    ),
    stated(
        "two items: pods of these namespaces, or pods of its own",
        policy(
            "x",
            podSelector=selecting(pod="a"),
            ingress=[{"from": [{"namespaceSelector": selecting(ns="y")}, {"podSelector": selecting(pod="b")}]}],
        ),
        may="y/b > x/a TCP/80, y/a > x/a TCP/80, x/b > x/a TCP/80",
        may_not="z/b > x/a TCP/80, x/c > x/a TCP/80",
    ),
    stated(
        "an empty podSelector is all pods of its own namespace, an empty namespaceSelector all of every one",
        policy("x", podSelector=ALL, ingress=[{"from": [{"podSelector": ALL, "namespaceSelector": None}]}]),
        policy("y", podSelector=ALL, ingress=[{"from": [{"namespaceSelector": ALL, "ipBlock": None}]}]),
        may="x/b > x/a TCP/80, x/a > y/a TCP/80, z/c > y/a ICMP",
        may_not="y/a > x/a TCP/80, 203.0.113.9 > y/a TCP/80, 203.0.113.9 > x/a TCP/80, n1 > y/a TCP/80",
    ),
    stated(
        "an empty namespaceSelector with a podSelector is these pods everywhere",
        policy(
            "x", podSelector=ALL, ingress=[{"from": [{"namespaceSelector": ALL, "podSelector": selecting(pod="b")}]}]
        ),
        may="x/b > x/a TCP/80, z/b > x/a TCP/80",
        may_not="x/c > x/a TCP/80, y/a > x/a TCP/80",
    ),
    stated(
        "a namespace by its name, and several of them",
        policy(
            "x",
            podSelector=ALL,
            policyTypes=["Egress"],
            egress=[{"to": [{"namespaceSelector": expressing("kubernetes.io/metadata.name", "In", "y", "x")}]}],
        ),
        may="x/a > y/a TCP/80, x/a > x/b TCP/80",
        may_not="x/a > z/a TCP/80",
    ),
    stated(
        "NotIn and DoesNotExist hold for who has no such label, In and Exists do not",
        policy("x", podSelector=ALL, ingress=[{"from": [{"namespaceSelector": expressing("team", "NotIn", "red")}]}]),
        policy("y", podSelector=ALL, ingress=[{"from": [{"namespaceSelector": expressing("team", "DoesNotExist")}]}]),
        policy(
            "z",
            "p",
            podSelector=selecting(pod="a"),
            ingress=[{"from": [{"namespaceSelector": expressing("team", "Exists")}]}],
        ),
        policy(
            "z",
            "q",
            podSelector=selecting(pod="b"),
            ingress=[{"from": [{"namespaceSelector": expressing("team", "In", "")}]}],
        ),
        namespaces=[namespace("x", {"team": "red"}), namespace("y", {"team": ""}), namespace("z", {})],
        may=("y/a > x/a TCP/80, z/a > x/a TCP/80, z/a > y/a TCP/80, x/a > z/a TCP/1, y/a > z/a TCP/1, y/a > z/b TCP/1"),
        may_not=(
            "x/b > x/a TCP/80, x/a > y/a TCP/80, y/b > y/a TCP/1, z/b > z/a TCP/1, x/a > z/b TCP/1, z/a > z/b TCP/1"
        ),
    ),
    stated(
        "matchLabels and matchExpressions must all hold",
        policy(
            "x",
            podSelector={**selecting(pod="a"), **expressing("pod", "In", "a", "b")},
            ingress=[],
        ),
        policy("y", podSelector={**selecting(pod="a"), **expressing("pod", "NotIn", "a")}, ingress=[]),
        policy(
            "z",
            podSelector={
                "matchExpressions": [
                    {"key": "pod", "operator": "Exists", "values": []},
                    {"key": "pod", "operator": "NotIn", "values": ["a", "b"]},
                ]
            },
            ingress=[],
        ),
        may="y/b > y/a TCP/80, x/a > x/b TCP/80, x/a > z/a TCP/80, x/a > z/b TCP/80",
        may_not="x/b > x/a TCP/80, x/a > z/c TCP/80",
    ),
    stated(
        "labels of a pod are not those of its namespace",
        policy("x", podSelector=ALL, ingress=[{"from": [{"podSelector": selecting(ns="x")}]}]),
        policy("y", podSelector=ALL, ingress=[{"from": [{"namespaceSelector": selecting(pod="a")}]}]),
        may_not="x/b > x/a TCP/80, x/a > y/b TCP/80",
    ),
    stated(
        "a policy is for the pods of its namespace alone",
        LOGS,
        may="y/a > y/b TCP/1, z/b > y/a TCP/1",
        may_not="y/a > x/a TCP/1",
    ),
)
