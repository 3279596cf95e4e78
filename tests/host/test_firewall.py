"""With a host firewall that drops, pods work with our accepts and do not without them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.host.lab import PLAN, Lab, Namespace, wait_until
from tunrouter.edge.firewall import legacy
from tunrouter.host import Host, reset

pytestmark = pytest.mark.root

BACKENDS = ["iptables-nft", "iptables-legacy"]


def two_pods(lab: Lab, *, manage: bool) -> tuple[Host, Namespace]:
    host = lab.host(manage_firewall=manage)
    lab.inside(host.apply)
    pod = lab.pod(host, "10.32.1.2")
    lab.pod(host, "10.32.1.3")
    return host, pod


@pytest.mark.parametrize("nf_call", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forward_policy_of_drop_is_overcome(lab: Lab, backend: str, nf_call: int) -> None:
    lab.nf_call(nf_call)
    lab.host_ns.run(backend, "-P", "FORWARD", "DROP")
    reporting, pod = two_pods(lab, manage=False)
    assert not pod.pings("10.32.1.3"), "without accepts nothing passes"
    assert f"{backend} filter FORWARD would drop" in reporting.facts().firewall[0]
    assert "tunrouter" not in lab.host_ns.run(backend, "-S")
    host = lab.host()
    assert f"accepts in {backend} FORWARD" in lab.inside(host.apply)
    assert pod.pings("10.32.1.3")
    assert pod.pings("192.0.2.2"), "the answer comes from the outside to a pod"
    assert host.facts().firewall == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_flushed_accepts_return_and_never_double(lab: Lab, backend: str) -> None:
    lab.host_ns.run(backend, "-P", "FORWARD", "DROP")
    host, pod = two_pods(lab, manage=True)
    once = lab.host_ns.run(backend, "-S")
    wait_until(lambda: not lab.inside(host.repair))
    for command in (("-F", "FORWARD"), ("-I", "FORWARD", "-j", "DROP")):
        lab.host_ns.run(backend, *command)
        assert lab.inside(host.repair) == [f"accepts in {backend} FORWARD"]
        assert pod.pings("10.32.1.3")
        rules = lab.host_ns.run(backend, "-S")
        assert rules.count("--comment tunrouter") == once.count("--comment tunrouter") == 4
    assert lab.inside(host.repair) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_policy_set_later_is_noticed(lab: Lab, backend: str) -> None:
    lab.host_ns.run(backend, "-A", "FORWARD", "-i", "other", "-j", "ACCEPT")
    host, pod = two_pods(lab, manage=True)
    wait_until(lambda: not lab.inside(host.repair))
    assert "tunrouter" not in lab.host_ns.run(backend, "-S"), "nothing is added where nothing is dropped"
    lab.host_ns.run(backend, "-P", "FORWARD", "DROP")
    assert lab.inside(host.repair) == [f"accepts in {backend} FORWARD"]
    assert pod.pings("10.32.1.3")


def test_docker_s_user_chain_is_used_while_it_is_reached(lab: Lab) -> None:
    for rule in ("-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-P FORWARD DROP", "-I FORWARD -j DOCKER-USER"):
        lab.host_ns.run("iptables-nft", *rule.split())
    host, pod = two_pods(lab, manage=True)
    rules = lab.host_ns.run("iptables-nft", "-S")
    assert rules.count("-A DOCKER-USER") == 5
    assert rules.count("-A FORWARD") == 1
    assert pod.pings("10.32.1.3")
    lab.host_ns.run("iptables-nft", "-F", "FORWARD")
    done = lab.inside(host.repair)
    assert done[-1] == "accepts in iptables-nft FORWARD"
    assert pod.pings("10.32.1.3")


@pytest.mark.parametrize("backend", [*BACKENDS, "ip6tables-nft", "ip6tables-legacy"])
def test_the_tunnel_s_port_is_opened(lab: Lab, backend: str) -> None:
    lab.host_ns.run(backend, "-P", "INPUT", "DROP")
    lab.host_ns.run(backend, "-A", "INPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
    host = lab.host()
    assert f"accepts in {backend} INPUT" in lab.inside(host.apply)
    first = next(line for line in lab.host_ns.run(backend, "-S", "INPUT").splitlines() if line.startswith("-A"))
    assert "--dport 6783" in first
    assert "udp" in first
    assert "conntrack" not in first


def test_an_open_port_is_left_as_it_is(lab: Lab) -> None:
    for rule in ("-P INPUT DROP", "-A INPUT -i eth0 -p udp -m udp --dport 6000:7000 -j ACCEPT"):
        lab.host_ns.run("iptables-nft", *rule.split())
    host = lab.host()
    lab.inside(host.apply)
    assert "tunrouter" not in lab.host_ns.run("iptables-nft", "-S")
    assert host.facts().firewall == ()


def test_a_native_chain_is_reported_and_left_alone(lab: Lab) -> None:
    table = """
    table inet mine {
      chain gate {
        type filter hook forward priority 10; policy drop;
        ct state established accept
      }
    }
    """
    lab.host_ns.run("nft", "-f", "-", text=table)
    before = lab.host_ns.run("nft", "list", "table", "inet", "mine")
    host, pod = two_pods(lab, manage=True)
    assert not pod.pings("10.32.1.3")
    assert host.facts().firewall[0].startswith("nft inet mine gate would drop")
    assert lab.host_ns.run("nft", "list", "table", "inet", "mine") == before
    rule = f'insert rule inet mine gate iifname {{ "{PLAN.bridge}", "{PLAN.tun}" }} accept\n'
    lab.host_ns.run("nft", "-f", "-", text=rule + rule.replace("iifname", "oifname"))
    lab.inside(host.repair)
    assert host.facts().firewall == ()
    assert pod.pings("10.32.1.3")


def test_rules_whose_tool_is_missing_are_told_of_and_stop_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.host_ns.run("iptables-nft", "-P", "FORWARD", "DROP")
    host = lab.host()
    with monkeypatch.context() as patch:
        patch.setattr("tunrouter.edge.firewall.iptables.SAVE", "-nowhere")
        lab.inside(host.apply)
        assert host.facts().firewall[0].startswith("iptables-nft cannot be looked at")


def test_a_firewall_that_refuses_is_told_of_and_stops_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.host_ns.run("iptables-nft", "-P", "FORWARD", "DROP")
    host = lab.host()
    with monkeypatch.context() as patch:
        patch.setattr("tunrouter.edge.firewall.iptables.RESTORE", "-nowhere")
        lab.inside(host.apply)
        dropped, refused = host.facts().firewall
        assert "FORWARD would drop" in dropped
        assert "iptables-nft refused our accepts" in refused
        for _ in range(3):
            assert lab.inside(host.repair) == []
    assert lab.inside(host.repair) == ["accepts in iptables-nft FORWARD"], "it is tried again, unasked"
    assert host.facts().firewall == ()


FIREWALLD = """
table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    jump zones
    ct state invalid drop
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    jump ports
    reject with icmpx admin-prohibited
  }
  chain zones {
    oifname "weave" accept
    oifname "tunrouter0" accept
  }
  chain ports { tcp dport 22 accept; }
}
"""
FIREWALL_CMD = """#!/bin/sh
# Understands what a firewalld of one zone would be asked, and keeps its answers in the chains above.
answer() { if grep -q "$1"; then echo yes; else echo no; exit 1; fi; }
case "$*" in
  --state) echo running;;
  --get-default-zone) echo public;;
  --get-zones) echo "public trusted";;
  --get-zone-of-interface=*) echo "no zone"; exit 2;;
  *--query-interface=*) nft list chain inet firewalld zones | answer "iifname \\"${2#*=}\\"";;
  *--change-interface=*) nft add rule inet firewalld zones iifname "${2#*=}" accept;;
  *--remove-interface=*) nft flush chain inet firewalld zones;;
  --zone=public*--query-rich-rule=*) nft list chain inet firewalld ports | answer 6783;;
  *--query-rich-rule=*) echo no; exit 1;;
  *--add-rich-rule=*priority=\\"-83\\"*port=\\"6783\\"*) nft add rule inet firewalld ports udp dport 6783 accept;;
  *--remove-rich-rule=*) nft flush chain inet firewalld ports;;
  *) echo "unexpected: $*" >&2; exit 9;;
esac
"""


def test_firewalld_is_asked_to_trust_our_devices(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "firewall-cmd"
    command.write_text(FIREWALL_CMD)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lab.host_ns.run("nft", "-f", "-", text=FIREWALLD)
    host = lab.host()
    assert sorted(line for line in lab.inside(host.apply) if "firewalld" in line) == [
        "firewalld: UDP 6783 in zone public",
        "firewalld: tunrouter0 in zone trusted",
        "firewalld: weave in zone trusted",
    ]
    assert host.facts().firewall == ()
    pod = lab.pod(host, "10.32.1.2")
    assert pod.pings("192.0.2.2")
    lab.host_ns.run("nft", "flush", "chain", "inet", "firewalld", "zones")
    assert "firewalld: weave in zone trusted" in lab.inside(host.repair), "a reload forgets what is not permanent"
    assert "firewalld: UDP 6783 out of zone public" in lab.inside(reset)


def test_without_the_right_to_watch_legacy_tables_that_is_one_complaint_and_the_rest_is_done(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CAP_NET_RAW is what the kernel asks for; a thread cannot give it up for a moment and take it again."""

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    lab.host_ns.run("iptables-legacy", "-P", "FORWARD", "DROP")
    monkeypatch.setattr(legacy, "socket", SimpleNamespace(**vars(socket) | {"socket": refused}))
    host, pod = two_pods(lab, manage=True)
    assert pod.pings("10.32.1.3")
    lab.host_ns.run("ip", "link", "set", "weave", "down")
    assert lab.inside(host.repair) != []
    (complaint,) = host.facts().firewall
    assert complaint.startswith("changes of iptables-legacy go unnoticed: it needs CAP_NET_RAW")
    monkeypatch.undo()
    lab.inside(host.repair)
    assert host.facts().firewall == ()
