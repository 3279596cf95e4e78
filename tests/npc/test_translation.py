"""Objects of the API as the compiler's values: every default, and that what is not understood permits nothing."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunrouter.core.policy import compiler
from tunrouter.core.policy.model import (
    EVERYTHING,
    Block,
    NamedPort,
    Peers,
    Policy,
    Ports,
    Requirement,
    Rule,
    Selector,
)
from tunrouter.edge.kube.objects import NETWORK_POLICIES, PODS
from tunrouter.npc import translation
from tunrouter.npc.translation import SHORT

ANYTHING = Rule(None, None)
TEN = ip_network("10.0.0.0/8")
METADATA = {"name": "db", "namespace": "shop", "uid": "u1", "creationTimestamp": "1970-01-01T00:00:10Z"}


def policy(spec: Any) -> Policy:
    raw = json.dumps({"metadata": METADATA, "spec": spec}).encode()
    return translation.policy(NETWORK_POLICIES.decode(raw))


def ingress(*rules: Any) -> tuple[Rule, ...]:
    """Of rules that are all understood."""
    found = policy({"podSelector": {}, "ingress": list(rules)})
    assert found.faults == ()
    assert found.ingress is not None
    return found.ingress


def labelled(**labels: str) -> Selector:
    return Selector(frozenset(Requirement(key, "In", frozenset({value})) for key, value in labels.items()))


# --- which directions ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "isolated"),
    [
        ({}, "i"),
        (None, "i"),
        ({"podSelector": {}}, "i"),
        ({"policyTypes": None}, "i"),
        ({"policyTypes": []}, "i"),
        ({"ingress": None}, "i"),
        ({"ingress": []}, "i"),
        ({"egress": []}, "i"),
        ({"egress": None}, "i"),
        ({"egress": [{}]}, "ie"),
        ({"egress": [{}], "policyTypes": []}, "ie"),
        ({"policyTypes": ["Ingress"]}, "i"),
        ({"policyTypes": ["Egress"]}, "e"),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, "e"),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, "i"),
        ({"policyTypes": ["Ingress", "Egress"]}, "ie"),
    ],
)
def test_which_directions_are_isolated(spec: Any, isolated: str) -> None:
    found = policy(spec)
    assert (found.ingress is not None, found.egress is not None) == ("i" in isolated, "e" in isolated)
    assert found.faults == ()
    assert (found.namespace, found.name) == ("shop", "db")


@pytest.mark.parametrize(("given", "rules"), [(None, ()), ([], ()), ([{}], (ANYTHING,)), ([{}, {}], (ANYTHING,) * 2)])
def test_no_rule_permits_nothing_and_an_empty_rule_everything(given: Any, rules: tuple[Rule, ...]) -> None:
    assert policy({"policyTypes": ["Ingress", "Egress"], "ingress": given, "egress": given})[3:5] == (rules, rules)


# --- who -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "selector"),
    [
        (None, EVERYTHING),
        ({}, EVERYTHING),
        ({"matchLabels": None, "matchExpressions": None}, EVERYTHING),
        ({"matchLabels": {}, "matchExpressions": []}, EVERYTHING),
        ({"matchLabels": {"app": "db", "tier": ""}}, labelled(app="db", tier="")),
        ({"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]},
         labelled(app="db")),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x", "y", "x"]},
                               {"key": "b", "operator": "Exists"},
                               {"key": "c", "operator": "DoesNotExist", "values": []}]},
         Selector(frozenset({Requirement("a", "NotIn", frozenset({"x", "y"})), Requirement("b", "Exists"),
                             Requirement("c", "DoesNotExist")}))),
    ],
)  # fmt: skip
def test_selectors(given: Any, selector: Selector) -> None:
    assert policy({"podSelector": given}).selector == selector
    if given is not None:
        assert ingress({"from": [{"podSelector": given}]}) == (Rule((Peers(selector),), None),)
        assert ingress({"from": [{"namespaceSelector": given}]}) == (Rule((Peers(EVERYTHING, selector),), None),)


@pytest.mark.parametrize("peers", [None, []])
def test_without_peers_it_is_everybody(peers: Any) -> None:
    assert ingress({"from": peers}) == (ANYTHING,)
    assert policy({"egress": [{"to": peers}]}).egress == (ANYTHING,)


def test_a_peer_with_both_selectors_is_both_at_once() -> None:
    both = {"podSelector": {"matchLabels": {"a": "b"}}, "namespaceSelector": {}}
    assert ingress({"from": [both]}) == (Rule((Peers(labelled(a="b"), EVERYTHING),), None),)
    two: list[Any] = [{"podSelector": {}}, {"namespaceSelector": {}}]
    assert ingress({"from": two}) == (Rule((Peers(EVERYTHING), Peers(EVERYTHING, EVERYTHING)), None),)
    assert ingress({"from": [{"podSelector": {}, "namespaceSelector": None}]}) == (Rule((Peers(EVERYTHING),), None),)


@pytest.mark.parametrize(
    ("given", "block"),
    [
        ({"cidr": "10.0.0.0/8"}, Block(TEN)),
        ({"cidr": "10.1.2.3/8", "except": None}, Block(TEN)),
        ({"cidr": "10.1.2.3/32", "except": []}, Block(ip_network("10.1.2.3/32"))),
        ({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.168.0.1/16"]},
         Block(ip_network("0.0.0.0/0"), (ip_network("10.0.0.0/8"), ip_network("192.168.0.0/16")))),
        ({"cidr": "2001:db8::/32", "except": ["2001:db8::1/128"]},
         Block(ip_network("2001:db8::/32"), (ip_network("2001:db8::1/128"),))),
        ({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}, Block(TEN, (TEN,))),
    ],
)  # fmt: skip
def test_blocks(given: Any, block: Block) -> None:
    assert ingress({"from": [{"ipBlock": given}]}) == (Rule((block,), None),)


# --- ports -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "ports"),
    [
        (None, None),
        ([], None),
        ([{}], (Ports("TCP"),)),
        ([{"protocol": None, "port": None, "endPort": None}], (Ports("TCP"),)),
        ([{"protocol": "SCTP"}], (Ports("SCTP", 0, 65535),)),
        ([{"port": 80}], (Ports("TCP", 80, 80),)),
        ([{"port": 1, "endPort": 65535, "protocol": "UDP"}], (Ports("UDP", 1, 65535),)),
        ([{"port": 80, "endPort": 80}], (Ports("TCP", 80, 80),)),
        ([{"port": "web"}, {"port": "dns", "protocol": "UDP"}], (Ports("TCP", name="web"), Ports("UDP", name="dns"))),
    ],
)
def test_ports(given: Any, ports: Any) -> None:
    assert ingress({"ports": given}) == (Rule(None, ports),)
    assert policy({"egress": [{"ports": given}]}).egress == (Rule(None, ports),)


# --- what is not understood ------------------------------------------------------------------------------------------
FAULTS: list[tuple[Any, str]] = [
    ({"from": [{}]}, "a peer has neither a selector nor an ipBlock"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}, "has selectors, not both"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "namespaceSelector": {}}]}, "has selectors, not both"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}, "10.0.0.0/33"),
    ({"from": [{"ipBlock": {"cidr": ""}}]}, "'' is no CIDR"),
    ({"from": [{"ipBlock": {}}]}, "missing required field `cidr`"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}, "11.0.0.0/16 is no part of"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["2001:db8::/32"]}}]}, "is no part of 10.0.0.0/8"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.0.0/8"]}}]}, "10.0.0.0/8 is no part of"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "only": []}}]}, "unknown field `only`"),
    ({"from": [{"serviceSelector": {}}]}, "unknown field `serviceSelector`"),
    ({"from": [{"podSelector": {"matchFields": []}}]}, "unknown field `matchFields`"),
    ({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}]}, "'Gt'"),
    ({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}}]},
     "In of 'a' has no values"),
    ({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn"}]}}]}, "NotIn of 'a' has"),
    ({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}}]},
     "Exists of 'a' has needless values"),
    ({"from": {"podSelector": {}}}, "Expected `array"),
    ({"from": [None]}, "Expected `object"),
    ({"ports": [{"port": 80, "endPort": 79}]}, "ports from 80 to 79 are none"),
    ({"ports": [{"port": 0}]}, "ports from 0 to 0 are none"),
    ({"ports": [{"port": -1, "endPort": 80}]}, "ports from -1 to 80 are none"),
    ({"ports": [{"port": 65535, "endPort": 65536}]}, "to 65536 are none"),
    ({"ports": [{"endPort": 80}]}, "endPort 80 has no port before it"),
    ({"ports": [{"port": "web", "endPort": 80}]}, "endPort 80 cannot follow the name 'web'"),
    ({"ports": [{"port": ""}]}, "'' is no name of a port"),
    ({"ports": [{"port": "80"}]}, "'80' is no name of a port"),
    ({"ports": [{"port": "a--b"}]}, "'a--b' is no name of a port"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]}, "'10.0.0.1' is no CIDR"),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/255.0.0.0"}}]}, "'10.0.0.0/255.0.0.0' is no CIDR"),
    ({"from": [{"ipBlock": {"cidr": "fe80::1%eth0/64"}}]}, "is no CIDR"),
    ({"from": [{"podSelector": {"matchExpressions": [{"key": "", "operator": "Exists"}]}}]}, "Exists has no key"),
    ({"ports": [{"port": 80, "protocol": "ICMP"}]}, "'ICMP'"),
    ({"ports": [{"port": 80, "protocol": "tcp"}]}, "'tcp'"),
    ({"ports": [{"port": 80.5}]}, "Expected"),
    ({"ports": [{"port": True}]}, "Expected"),
    ({"ports": [{"port": 80, "rate": 5}]}, "unknown field `rate`"),
    ({"ports": [{"port": 1 << 80}]}, ""),
    ({"log": True}, "unknown field `log`"),
    (None, "Expected `object"),
    ([], "Expected `object"),
    ("", "Expected `object"),
]  # fmt: skip


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize(("rule", "words"), FAULTS)
def test_a_rule_that_is_not_understood_permits_nothing_alone(rule: Any, words: str, direction: str) -> None:
    if direction == "egress" and isinstance(rule, dict) and "from" in rule:
        rule = {"to": rule["from"]}
    good = {"ports": [{"port": 80}]}
    found = policy({"policyTypes": ["Ingress", "Egress"], direction: [good, rule, good]})
    (fault,) = found.faults
    assert fault.startswith(f"spec.{direction}[1] permits nothing: ")
    assert words in fault
    understood = Rule(None, (Ports("TCP", 80, 80),))
    other = found.egress if direction == "ingress" else found.ingress
    assert (found.ingress if direction == "ingress" else found.egress) == (understood, understood)
    assert other == ()


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"a": 1}},
        {"matchLabels": {"a": None}},
        {"matchExpressions": [{"key": "a", "operator": "Near"}]},
        {"matchExpressions": [{"operator": "Exists"}]},
        {"matchNames": ["x"]},
        [],
        "app=db",
    ],
)
def test_a_policy_for_nobody_knows_whom_closes_its_namespace(selector: Any) -> None:
    found = policy({"podSelector": selector, "ingress": [{}], "egress": [{}]})
    assert found[2:5] == (EVERYTHING, (), ())
    assert found.faults[0].startswith("spec.podSelector permits nothing: ")


@pytest.mark.parametrize("spec", [[], "x", 3, True, 0, ""])
def test_a_spec_that_is_no_object_closes_its_namespace_both_ways(spec: Any) -> None:
    found = policy(spec)
    assert found[2:5] == (EVERYTHING, (), ())
    assert found.faults == ("spec is no object, so nothing is permitted",)


def test_a_field_that_is_not_known_may_be_what_restricts() -> None:
    found = policy({"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{}], "priority": 3})
    assert found[2:5] == (labelled(a="b"), (), None)
    assert found.faults == ("spec.priority is not known to this version, so nothing is permitted",)
    assert policy({"ingress": [{}], "priority": None}).faults == (), "null is absent"


@pytest.mark.parametrize(
    "types", [["Ingress", "Forward"], ["ingress"], "Ingress", {"Ingress": 1}, [None], 7, "", {}, 0]
)
def test_types_that_are_not_known_isolate_both_ways_and_the_rules_stay(types: Any) -> None:
    found = policy({"policyTypes": types, "ingress": [{}]})
    assert found[3:5] == ((ANYTHING,), ())
    assert found.faults[0].startswith("spec.policyTypes: ")


@pytest.mark.parametrize("given", [{}, "x", {"from": []}, 3])
def test_rules_that_are_no_list_permit_nothing(given: Any) -> None:
    assert policy({"ingress": given}).faults == ("spec.ingress is no list, so nothing is permitted",)
    assert policy({"ingress": given}).ingress == ()
    assert policy({"policyTypes": ["Egress"], "egress": given}).egress == ()


def test_peers_by_names_of_ports_are_not_more_than_a_node_can_hold() -> None:
    """They are a product: a policy that is quickly written would fill the memory of every node."""

    def crossed(many: int) -> Policy:
        peers = [{"podSelector": {"matchLabels": {"a": f"v{at}"}}} for at in range(many)]
        rule = {"from": peers, "ports": [{"port": f"n{at}"} for at in range(many)]}
        return policy({"podSelector": {}, "ingress": [rule, rule], "egress": [{}]})

    found = crossed(1000)
    assert found.ingress == ()
    assert found.egress == (ANYTHING,)
    assert "2000000 times" in found.faults[0]
    assert crossed(150).faults == ()


def test_many_rules_and_blocks_are_understood() -> None:
    blocks = [{"ipBlock": {"cidr": f"10.{at >> 8}.{at & 255}.0/24"}} for at in range(20_000)]
    assert (
        policy({"podSelector": {}, "ingress": [{"from": blocks, "ports": [{"port": "a"}, {"port": "b"}]}]}).faults == ()
    )
    assert policy({"podSelector": {}, "ingress": [{"from": [one]} for one in blocks]}).faults == ()


def test_a_fault_is_short_whatever_was_written() -> None:
    found = policy(
        {"policyTypes": ["x" * 10_000], "x" * 10_000: 1, "ingress": [{"ports": [{"port": "a" * 999, "endPort": 1}]}]}
    )
    assert len(found.faults) == 3
    assert all(len(fault) <= SHORT for fault in found.faults)


# --- anything at all -------------------------------------------------------------------------------------------------
words = st.sampled_from(
    ("podSelector", "namespaceSelector", "ipBlock", "cidr", "except", "ingress", "egress", "from", "to", "ports",
     "port", "endPort", "protocol", "policyTypes", "matchLabels", "matchExpressions", "key", "operator", "values")
)  # fmt: skip
atoms = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.sampled_from(("TCP", "In", "Exists", "Ingress", "Egress", "10.0.0.0/8", "::/0", "::1%eth0/64", "10.0.0.1/"))
)  # fmt: skip
anything = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(), inner, max_size=4)
)
specs = st.fixed_dictionaries({}, optional=dict.fromkeys(("podSelector", "policyTypes", "ingress", "egress"), anything))


@settings(max_examples=300)
@given(specs | anything)
def test_whatever_a_spec_is_it_becomes_a_policy_that_compiles(spec: Any) -> None:
    found = policy(spec)
    assert found.ingress is not None or found.egress is not None
    assert all(fault and len(fault) <= SHORT for fault in found.faults)
    pod = translation.pod(PODS.decode(POD_RAW))
    compiler.compile("node-a", [pod], {"shop": {}}, [found]).passes(STRANGER, pod.addresses[0], "TCP", 80)


STRANGER = ip_address("192.0.2.9")


# --- pods ------------------------------------------------------------------------------------------------------------
POD_OBJECT: dict[str, Any] = {
    "metadata": METADATA | {"labels": {"app": "db"}},
    "spec": {
        "nodeName": "node-a",
        "containers": [{"ports": [{"name": "sql", "containerPort": 5432}, {"containerPort": 9}]},
                       {"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}, {}],
        "initContainers": [{"restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]},
                           {"ports": [{"name": "init", "containerPort": 1}]},
                           {"restartPolicy": "OnFailure", "ports": [{"name": "init", "containerPort": 1}]}],
    },
    "status": {"phase": "Running", "podIP": "10.32.0.2", "podIPs": [{"ip": "10.32.0.2"}]},
}  # fmt: skip
POD_RAW = json.dumps(POD_OBJECT).encode()


def pod(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> Any:
    changed = POD_OBJECT | {"spec": POD_OBJECT["spec"] | (spec or {}), "status": POD_OBJECT["status"] | (status or {})}
    return translation.pod(PODS.decode(json.dumps(changed).encode()))


def test_a_pod_with_its_sidecars_ports() -> None:
    found = pod()
    assert (found.key, found.uid, found.labels, found.node, found.born) == (
        ("shop", "db"), "u1", {"app": "db"}, "node-a", 10.0
    )  # fmt: skip
    assert found.ports == (
        NamedPort("sql", "TCP", 5432), NamedPort("dns", "UDP", 53), NamedPort("proxy", "TCP", 15001)
    )  # fmt: skip
    assert (found.host_network, found.ended) == (False, False)


def test_a_static_pod_is_known_by_the_uid_that_its_kubelet_gave_it() -> None:
    annotations = {"kubernetes.io/config.mirror": "of its file", "example/other": "x"}
    changed = POD_OBJECT | {"metadata": POD_OBJECT["metadata"] | {"annotations": annotations}}
    assert translation.pod(PODS.decode(json.dumps(changed).encode())).uid == "of its file"


def test_a_port_that_two_containers_name_is_there_once_and_odd_protocols_are_none() -> None:
    port = {"name": "web", "containerPort": 80}
    twice = [{"ports": [port, port | {"protocol": "TCP"}]}, {"ports": [port, port | {"protocol": "ICMP"}]}]
    assert pod({"containers": twice, "initContainers": []}).ports == (NamedPort("web", "TCP", 80),)


@pytest.mark.parametrize(
    ("status", "addresses"),
    [
        ({}, ["10.32.0.2"]),
        ({"podIPs": [{"ip": "10.32.0.2"}, {"ip": "fd00::2"}]}, ["10.32.0.2", "fd00::2"]),
        ({"podIP": "", "podIPs": [{"ip": "fd00::2"}]}, ["fd00::2"]),
        ({"podIP": None, "podIPs": None}, []),
        ({"podIP": "10.32.0", "podIPs": [{}]}, []),
        ({"podIPs": [{"ip": "FD00:0::2"}, {"ip": "fd00::2"}]}, ["10.32.0.2", "fd00::2"]),
    ],
)
def test_addresses(status: dict[str, Any], addresses: list[str]) -> None:
    assert pod(status=status).addresses == tuple(map(ip_address, addresses))


@pytest.mark.parametrize(
    ("phase", "ended"), [("Succeeded", True), ("Failed", True), ("Running", False), ("Unknown", False), ("", False)]
)
def test_who_has_ended(phase: str, ended: bool) -> None:
    assert pod(status={"phase": phase}).ended == ended
    assert pod({"hostNetwork": True}).host_network


def test_a_pod_of_which_nothing_is_said() -> None:
    found = translation.pod(PODS.decode(b'{"metadata":{"name":"a","namespace":"b"}}'))
    assert found[2:] == ("", {}, (), (), "", False, False, 0.0)


def test_a_peer_that_is_null_is_nobody_whatever_else_is_null() -> None:
    """Decoding stumbles over the labels, and must not take the list for empty: that would be everybody."""
    raw = {"metadata": {"name": "p", "namespace": "n", "labels": None},
           "spec": {"podSelector": {}, "ingress": [{"from": [None]}]}}  # fmt: skip
    found = translation.policy(NETWORK_POLICIES.decode(json.dumps(raw).encode()))
    assert found.ingress == ()
    assert found.faults
