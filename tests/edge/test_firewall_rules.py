"""What rules would do to our traffic, decided from their text."""

from __future__ import annotations

import shlex
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.edge.firewall import iptables, nftables
from tunrouter.edge.firewall.rules import Chain, Condition, Flow, Rule, verdict

RANGE = IPv4Network("10.32.0.0/12")
OUT = Flow(hook="forward", input="weave", output="eth0", source=RANGE)
IN = Flow(hook="forward", input="eth0", output="weave", destination=RANGE)
TUNNEL = Flow(hook="input", input="eth0", protocol="udp", port=6783, state="untracked")


def read(text: str) -> dict[str, Chain]:
    """`-P` and `-A` lines, as an administrator would type them."""
    chains: dict[str, Chain] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        option, name, *rest = shlex.split(line)
        chain = chains.setdefault(name, Chain([]))
        if option == "-P":
            chain.policy = "drop" if rest == ["DROP"] else "accept"
        else:
            chain.rules.append(iptables.parse(rest, line))
    return chains


CASES: list[tuple[str, Flow, str]] = [
    ("-P FORWARD ACCEPT", OUT, "accept"),
    ("-P FORWARD DROP", OUT, "drop"),
    ("-P FORWARD DROP\n-A FORWARD -i weave -j ACCEPT", OUT, "accept"),
    ("-P FORWARD DROP\n-A FORWARD -i weave -j ACCEPT", IN, "drop"),
    ("-P FORWARD DROP\n-A FORWARD -i we+ -j ACCEPT", OUT, "accept"),
    ("-P FORWARD DROP\n-A FORWARD ! -i docker0 -j ACCEPT", OUT, "accept"),
    ("-P FORWARD DROP\n-A FORWARD ! -i weave -j ACCEPT", OUT, "drop"),
    # The administrator drops one thing, or lets one thing in: neither is about us for certain.
    ("-P FORWARD ACCEPT\n-A FORWARD -m set --match-set bad src -j DROP", OUT, "accept"),
    ("-P FORWARD DROP\n-A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT", OUT, "drop"),
    ("-P FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate INVALID -j DROP", OUT, "accept"),
    ("-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", OUT, "drop"),
    ("-P FORWARD ACCEPT\n-A FORWARD -s 10.0.0.0/8 -j DROP", OUT, "drop"),
    ("-P FORWARD ACCEPT\n-A FORWARD -s 10.32.1.7/32 -j DROP", OUT, "accept"),
    ("-P FORWARD ACCEPT\n-A FORWARD -s 172.16.0.0/12 -j DROP", OUT, "accept"),
    ("-P FORWARD ACCEPT\n-A FORWARD ! -s 172.16.0.0/12 -j REJECT --reject-with icmp-port-unreachable", OUT, "drop"),
    ("-P FORWARD ACCEPT\n-A FORWARD -j LOG --log-prefix 'x -j DROP'", OUT, "accept"),
    ("-P FORWARD DROP\n-A FORWARD -i weave -m comment --comment 'a -j b' -j ACCEPT", OUT, "accept"),
    ("-P FORWARD ACCEPT\n-A FORWARD -j USER\n-A USER -i weave -j DROP", OUT, "drop"),
    ("-P FORWARD ACCEPT\n-A FORWARD -j USER\n-A USER -j RETURN\n-A USER -j DROP", OUT, "accept"),
    ("-P FORWARD DROP\n-A FORWARD -g USER\n-A FORWARD -j ACCEPT\n-A USER -i other -j ACCEPT", OUT, "drop"),
    ("-P FORWARD ACCEPT\n-A FORWARD -j LOOP\n-A LOOP -j LOOP", OUT, "accept"),
    ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 6783 -j ACCEPT", TUNNEL, "accept"),
    ("-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 6783 -j ACCEPT", TUNNEL, "drop"),
    ("-P INPUT DROP\n-A INPUT -p udp -m multiport --dports 53,6000:7000 -j ACCEPT", TUNNEL, "accept"),
    ("-P INPUT DROP\n-A INPUT -m conntrack --ctstate NEW -p udp --dport 6783 -j ACCEPT", TUNNEL, "drop"),
    ("-P INPUT DROP\n-A INPUT -s 192.0.2.0/24 -p udp --dport 6783 -j ACCEPT", TUNNEL, "drop"),
    ("-P INPUT ACCEPT\n-A INPUT -i eth0 -j DROP", TUNNEL, "drop"),
    ("-P INPUT ACCEPT\n-A INPUT -i eth1 -j DROP", TUNNEL, "accept"),
    # As ufw asks whether a packet is for this host.
    ("-P INPUT ACCEPT\n-A INPUT -m addrtype --dst-type LOCAL -j RETURN\n-A INPUT -j DROP", TUNNEL, "accept"),
    ("-P INPUT ACCEPT\n-A INPUT -m addrtype --dst-type MULTICAST -j DROP", TUNNEL, "accept"),
    ("-P FORWARD DROP\n-A FORWARD -m addrtype --dst-type LOCAL -j ACCEPT", OUT, "drop"),
    ("-P FORWARD ACCEPT\n-A FORWARD -m addrtype ! --dst-type LOCAL -j DROP", OUT, "drop"),
    ("-P FORWARD ACCEPT\n-A FORWARD -m addrtype --dst-type UNICAST -j DROP", OUT, "accept"),
]


@pytest.mark.parametrize(("text", "flow", "expected"), CASES)
def test_iptables_rules(text: str, flow: Flow, expected: str) -> None:
    assert verdict(read(text), flow.hook.upper(), flow)[0] == expected


def test_the_reason_is_the_rule_or_the_policy() -> None:
    assert verdict(read("-P FORWARD DROP"), "FORWARD", OUT) == ("drop", "policy drop")
    assert verdict(read("-P FORWARD ACCEPT\n-A FORWARD -j DROP"), "FORWARD", OUT) == ("drop", "-A FORWARD -j DROP")


def match(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


IIFNAME, STATE = {"meta": {"key": "iifname"}}, {"ct": {"key": "state"}}
UDP_PORT, TCP_PORT = ({"payload": {"protocol": name, "field": "dport"}} for name in ("udp", "tcp"))
NFT_CASES: list[tuple[list[dict[str, Any]], Flow, bool]] = [
    ([{"drop": None}], OUT, True),
    ([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}], OUT, True),
    ([{"counter": {"packets": 0, "bytes": 0}}, {"drop": None}], OUT, True),
    ([match(IIFNAME, "weave"), {"drop": None}], OUT, True),
    ([match(IIFNAME, "eth*"), {"drop": None}], OUT, False),
    ([match(IIFNAME, {"set": ["lo", "weave"]}), {"drop": None}], OUT, True),
    ([match(IIFNAME, "weave", "!="), {"drop": None}], OUT, False),
    ([match(IIFNAME, "@names"), {"drop": None}], OUT, False),
    ([match(STATE, ["established", "related"], "in"), {"drop": None}], OUT, False),
    ([match(STATE, "new", "in"), {"drop": None}], OUT, True),
    ([match(UDP_PORT, 6783), {"drop": None}], TUNNEL, True),
    ([match(TCP_PORT, 6783), {"drop": None}], TUNNEL, False),
    ([match(UDP_PORT, {"range": [6000, 7000]}), {"drop": None}], TUNNEL, True),
    ([match({"payload": {"protocol": "ip", "field": "saddr"}}, {"prefix": {"addr": "10.0.0.0", "len": 8}}),
      {"drop": None}], OUT, True),
    ([match({"meta": {"key": "nfproto"}}, "ipv6"), {"drop": None}], OUT, False),
    ([match({"meta": {"key": "mark"}}, 5), {"drop": None}], OUT, False),
    ([{"limit": {"rate": 1, "per": "second"}}, {"drop": None}], OUT, False),
    ([{"vmap": {"key": STATE, "data": {"set": [["invalid", {"accept": None}], ["new", {"drop": None}]]}}}], OUT, True),
    ([{"vmap": {"key": STATE, "data": {"set": [["invalid", {"drop": None}]]}}}], OUT, False),
    ([{"vmap": {"key": IIFNAME, "data": "@map"}}], OUT, False),
    ([{"fib": {}}, {"unheard-of": {}}], OUT, False),
]  # fmt: skip


@pytest.mark.parametrize(("expressions", "flow", "dropped"), NFT_CASES)
def test_nft_rules(expressions: list[dict[str, Any]], flow: Flow, dropped: bool) -> None:
    chains = {"c": Chain(nftables.parse(expressions), "accept", flow.hook)}
    assert (verdict(chains, "c", flow)[0] == "drop") is dropped


rules = st.builds(
    Rule,
    st.lists(
        st.builds(
            Condition,
            st.sampled_from(["input", "output", "port", "source", "state", "protocol", "version", "mark"]),
            st.lists(st.sampled_from(["weave", "e*", "6783", "1-9", "10.0.0.0/8", "new", "udp", "4", "?"])).map(tuple),
            st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
    st.sampled_from(["", "accept", "drop", "return", "jump", "goto"]),
    st.sampled_from(["", "a", "b", "nowhere"]),
)
chain_sets = st.fixed_dictionaries(
    {name: st.builds(Chain, st.lists(rules, max_size=6), st.sampled_from(["", "drop", "accept"])) for name in "ab"}
)


@given(chain_sets)
def test_any_rules_have_a_verdict_and_an_accept_at_the_head_wins(chains: dict[str, Chain]) -> None:
    assert verdict(chains, "a", OUT)[0] in {"accept", "drop"}
    chains["a"].rules.insert(0, Rule((Condition("input", ("weave",)),), "accept"))
    assert verdict(chains, "a", OUT)[0] == "accept"


def test_chains_that_jump_at_each_other_again_and_again_are_walked_once() -> None:
    chains = {name: Chain([Rule((), "jump", target) for _ in range(8)]) for name, target in (("a", "b"), ("b", "a"))}
    assert verdict(chains, "a", OUT) == ("accept", "policy accept")


@given(st.lists(st.text(), max_size=12))
def test_any_words_are_a_rule(words: list[str]) -> None:
    iptables.parse(words)
