"""Policy sets for a live cluster: by hand after the API's documentation and its corners, and drawn with fixed seeds.

Law: they name addresses that the cluster really has, so that blocks split it; what is excepted is part of its block, as
a real server insists.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any, Final, NamedTuple

from tests.policy.cluster import NAMES, NAMESPACES, NETWORKING, OUTSIDE_ADDRESS, RANGE, Cluster

Json = dict[str, Any]
ALL: Final[Json] = {}
DRAWN: Final = 24
EVERY: Final = ("Ingress", "Egress")


class Written(NamedTuple):
    name: str
    policies: tuple[Json, ...]


def policy(namespace: str, selected: Json, name: str = "p", types: tuple[str, ...] | None = None,
           ingress: list[Json] | None = None, egress: list[Json] | None = None) -> Json:  # fmt: skip
    """None is a field that is absent."""
    fields = {"podSelector": selected, "policyTypes": types, "ingress": ingress, "egress": egress}
    spec = {
        key: list(value) if isinstance(value, tuple) else value for key, value in fields.items() if value is not None
    }
    return {"apiVersion": NETWORKING, "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec}  # fmt: skip


def pods(**labels: str) -> Json:
    return {"matchLabels": labels}


def asking(key: str, operator: str, *values: str) -> Json:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


def block(cidr: str, *without: str) -> Json:
    return {"ipBlock": {"cidr": cidr, **({"except": list(without)} if without else {})}}


def tcp(port: int | str, **more: Any) -> Json:
    return {"protocol": "TCP", "port": port, **more}


def udp(port: int | str, **more: Any) -> Json:
    return {"protocol": "UDP", "port": port, **more}


def by_hand(found: Cluster) -> list[Written]:
    at, one, two = found.addresses, *found.hosts
    x_pods = {"from": [{"namespaceSelector": pods(ns="x")}]}
    dns = {"ports": [{"protocol": "UDP", "port": 81}]}
    around = str(ip_network(f"{at['x/b']}/30", strict=False))
    sets = {
        "default-deny-ingress": [policy("x", ALL, types=("Ingress",))],
        "default-deny-egress": [policy("x", ALL, types=("Egress",))],
        "default-deny-all": [policy(each, ALL, types=EVERY) for each in NAMESPACES],
        "allow-all-beside-deny": [policy("y", ALL, types=EVERY), policy("y", ALL, "open", EVERY, [ALL], [ALL])],
        "same-namespace": [policy("x", ALL, ingress=[{"from": [{"podSelector": ALL}]}])],
        "one-pod": [policy("x", pods(pod="a"), ingress=[{"from": [{"podSelector": pods(pod="b")}]}])],
        "one-namespace": [policy("y", ALL, ingress=[x_pods])],
        "pods-of-namespaces": [policy("z", pods(pod="c"), ingress=[{"from": [
            {"namespaceSelector": pods(ns="x"), "podSelector": asking("pod", "NotIn", "a")}]}])],
        "pods-or-namespaces": [policy("z", pods(pod="c"), ingress=[{"from": [
            {"namespaceSelector": pods(ns="x")}, {"podSelector": pods(pod="a")}]}])],
        "operators": [policy("x", asking("pod", "In", "a", "c"), ingress=[{"from": [
            {"namespaceSelector": asking("ns", "NotIn", "y"), "podSelector": asking("web", "DoesNotExist")},
            {"namespaceSelector": pods(ns="y"), "podSelector": asking("pod", "Exists")}]}])],
        "block-with-exceptions": [policy("x", ALL, ingress=[{"from": [
            block("0.0.0.0/0", f"{at['y/a']}/32", f"{at['z/b']}/32", f"{found.bridge(two)}/32")]}])],
        "block-of-pods": [policy("y", ALL, ingress=[{"from": [block(around)]}])],
        "outside-only": [policy("x", ALL, ingress=[{"from": [block(f"{OUTSIDE_ADDRESS}/32")]}])],
        "egress-block": [policy("x", ALL, types=("Egress",), egress=[{"to": [block("192.0.2.0/24", "192.0.2.2/32")]}])],
        "egress-to-pods-not-nodes": [policy("x", ALL, types=("Egress",), egress=[{"to": [block(RANGE, around)]}])],
        "own-node": [policy("y", ALL, types=("Egress",), egress=[{"to": [block(f"{one.address}/32")], **dns}])],
        "a-port": [policy("x", ALL, ingress=[{"ports": [tcp(80)]}])],
        "protocols": [policy("x", ALL, ingress=[{"ports": [{"protocol": "UDP"}, {"protocol": "SCTP", "port": 81}]}])],
        "a-port-of-no-protocol": [policy("x", ALL, ingress=[{"ports": [{"port": 81}]}])],
        "named-port": [policy("x", ALL, ingress=[{"ports": [tcp("web"), udp("serve-81-udp")]}])],
        "named-port-out": [policy("z", ALL, types=("Egress",), egress=[
            {"to": [{"namespaceSelector": ALL}], "ports": [tcp("web")]}, {"ports": [tcp("serve-81-tcp")]}])],
        "named-port-of-a-block": [policy("z", ALL, types=("Egress",), egress=[
            {"to": [block("0.0.0.0/0")], "ports": [tcp("web")]}])],
        "range": [policy("x", ALL, ingress=[{"ports": [tcp(79, endPort=80), udp(81, endPort=90)]}])],
        "several-add-up": [
            policy("x", ALL, "deny", types=EVERY), policy("x", pods(pod="a"), "in", ingress=[x_pods]),
            policy("x", pods(pod="b"), "out", types=("Egress",),
                   egress=[{"to": [{"podSelector": pods(pod="a")}]}, dns]),
            policy("x", asking("pod", "NotIn", "b"), "web", ingress=[{"ports": [tcp(80)]}])],
        "both-ends": [
            policy("x", ALL, types=("Egress",), egress=[{"to": [{"namespaceSelector": pods(ns="y")}]}, dns]),
            policy("y", ALL, ingress=[{**x_pods, "ports": [tcp(80), {"protocol": "SCTP", "port": 80}]}])],
        "implied-egress": [policy("x", ALL, egress=[{"to": [{"podSelector": ALL}]}])],
        "empty-lists": [policy("x", pods(pod="a"), ingress=[{"from": [], "ports": []}]), policy("y", ALL, ingress=[])],
    }  # fmt: skip
    return [Written(name, tuple(policies)) for name, policies in sets.items()]


def drawn(found: Cluster) -> Iterator[Written]:
    for seed in range(DRAWN):
        random = Random(seed)
        count = random.choice((2, 3, 4, 6))
        yield Written(f"seed-{seed}", tuple(_policy(random, found, at) for at in range(count)))


def _policy(random: Random, found: Cluster, number: int) -> Json:
    types = random.choice((None, ("Ingress",), ("Egress",), EVERY))
    ingress = _rules(random, found, "from")
    egress = _rules(random, found, "to")
    return policy(random.choice(NAMESPACES), _selector(random), f"p{number}", types, ingress, egress)


def _rules(random: Random, found: Cluster, field: str) -> list[Json] | None:
    if random.random() < 0.25:
        return None
    rules = []
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        rule: Json = {}
        if random.random() < 0.8:
            rule[field] = [_peer(random, found) for _ in range(random.choice((1, 1, 2)))]
        if random.random() < 0.6:
            rule["ports"] = [_port(random) for _ in range(random.choice((1, 1, 2)))]
        rules.append(rule)
    return rules


def _selector(random: Random, key: str = "pod", values: tuple[str, ...] = NAMES) -> Json:
    some = random.sample(values, random.choice((1, 2)))
    forms = (ALL, pods(**{key: some[0]}), asking(key, "In", *some), asking(key, "NotIn", *some), asking(key, "Exists"),
             asking("tier", "DoesNotExist"))  # fmt: skip
    return random.choice(forms)


def _peer(random: Random, found: Cluster) -> Json:
    of_pods, of_namespaces = _selector(random), _selector(random, "ns", NAMESPACES)
    near, other = random.sample([found.addresses[name] for name in sorted(found.addresses)], 2)
    length = random.choice((32, 31, 30, 16))
    cidr = str(ip_network(f"{near}/{length}", strict=False))
    forms = (
        {"podSelector": of_pods},
        {"namespaceSelector": of_namespaces},
        {"podSelector": of_pods, "namespaceSelector": of_namespaces},
        block(cidr),
        block("0.0.0.0/0", cidr, f"{other}/32"),
        block(RANGE, *([f"{other}/32"] if ip_address(other) in ip_network(RANGE) else [])),
    )
    return random.choice(forms)


def _port(random: Random) -> Json:
    protocol = random.choice(("TCP", "UDP", "SCTP"))
    forms = (
        {"protocol": protocol},
        {"protocol": protocol, "port": random.choice((80, 81))},
        {"port": random.choice((80, 81))},
        {"protocol": protocol, "port": 81, "endPort": 443},
        {"protocol": protocol, "port": 1, "endPort": 80},
        {"protocol": protocol, "port": f"serve-80-{protocol.lower()}"},
        tcp("web"),
    )
    return random.choice(forms)
