"""Firewalls that drop our traffic: as Docker, ufw, firewalld and people set them up, and mended in their own words."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest

from tests.doctor.patients import Patient
from tests.host.test_firewall import FIREWALL_CMD, FIREWALLD

pytestmark = pytest.mark.root

DOCKER = """
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""
"""As Docker 28 writes them."""
NATIVE = """
table inet gate {
  chain in { type filter hook input priority 0; policy drop; ct state established accept; }
  chain through { type filter hook forward priority 10; policy drop; }
}
"""
FOR_GOOD = """
  --add-port=6783/udp) nft add rule inet firewalld ports udp dport 6783 accept;;
  --permanent*) echo "$*" >> "$0.permanent";;
  --reload) cmp "$0.permanent" "$0.expected" || exit 3
    for name in weave tunrouter0; do
      for side in i o; do nft add rule inet firewalld zones ${side}ifname $name accept; done; done;;
"""
POLICY = """\
--permanent --zone=trusted --change-interface=weave
--permanent --zone=trusted --change-interface=tunrouter0
--permanent --new-policy=to-pods
--permanent --policy=to-pods --add-ingress-zone=ANY
--permanent --policy=to-pods --add-egress-zone=trusted
--permanent --policy=to-pods --set-target=ACCEPT
"""
"""With these a real firewalld 1.3 lets the outside in; what comes from a trusted device it lets through without."""
UFW = """#!/bin/sh
# The real one, with its files in {etc}.
exec unshare -m sh -ec 'mount --bind {etc}/ufw /etc/ufw; mount --bind {etc}/default/ufw /etc/default/ufw
mount -t tmpfs none /run; exec /usr/sbin/ufw "$@"' ufw "$@"
"""
Act = Callable[[Patient], object]


def iptables(*rules: str) -> Act:
    def plant(patient: Patient) -> None:
        for rule in rules:
            patient.run(*rule.split())

    return plant


def docker(patient: Patient) -> None:
    patient.run("iptables-nft-restore", text=DOCKER)


def native(patient: Patient) -> None:
    patient.run("nft", "-f", "-", text=NATIVE)


def firewalld(patient: Patient) -> None:
    patient.run("nft", "-f", "-", text=re.sub("oifname .* accept", "", FIREWALLD))
    command = patient.programs / "firewall-cmd"
    command.write_text(FIREWALL_CMD.replace("  --state)", FOR_GOOD + "  --state)"))
    command.with_name("firewall-cmd.expected").write_text(POLICY)
    command.chmod(0o755)


def ufw(patient: Patient) -> None:
    etc = patient.directory / "etc"
    (etc / "default").mkdir(parents=True)
    shutil.copytree("/etc/ufw", etc / "ufw")
    shutil.copy("/etc/default/ufw", etc / "default")
    command = patient.programs / "ufw"
    command.write_text(UFW.format(etc=etc))
    command.chmod(0o755)
    patient.run(str(command), "--force", "enable")


FIREWALLS: dict[str, tuple[Act, tuple[str, ...], str]] = {
    "Docker": (docker, ("iptables-nft filter FORWARD would drop",), "iptables-nft -I DOCKER-USER -i weave"),
    "ufw": (ufw, ("filter FORWARD would drop", "filter INPUT would drop UDP 6783"), "ufw route allow in on weave"),
    "firewalld": (
        firewalld, ("nft inet firewalld filter_FORWARD", "nft inet firewalld filter_INPUT"),
        "firewall-cmd --permanent --policy=to-pods --add-egress-zone=trusted",
    ),
    "iptables-nft": (
        iptables("iptables-nft -P FORWARD DROP", "ip6tables-nft -A INPUT -p udp -j DROP"),
        ("iptables-nft filter FORWARD", "ip6tables-nft filter INPUT"), "ip6tables-nft -I INPUT -p udp",
    ),
    "iptables-legacy": (
        iptables("iptables-legacy -A FORWARD -j REJECT", "iptables-legacy -P INPUT DROP"),
        ("iptables-legacy filter FORWARD", "iptables-legacy filter INPUT"), "iptables-legacy -I FORWARD -i weave",
    ),
    "nftables": (native, ("nft inet gate through", "nft inet gate in"), "nft insert rule inet gate through"),
}  # fmt: skip
FLUSHED = ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")


@pytest.mark.parametrize("who", FIREWALLS)
def test_a_firewall_is_named_and_mended_in_its_own_words(healthy: Patient, who: str) -> None:
    plant, words, fix = FIREWALLS[who]
    try:
        plant(healthy)
        done = healthy.obey(healthy.finds("firewall", *words))
        if who == "firewalld":
            done += healthy.obey(healthy.finds("firewall", "would drop the outside to pods"))
        assert any(command.startswith(fix) for command in done), done
        assert healthy.ailments() == []
        assert healthy.pod.pings("192.0.2.2"), "and pods reach the outside indeed"
    finally:
        for backend in FLUSHED:
            healthy.run(backend, "-P", "FORWARD", "ACCEPT")
            healthy.run(backend, "-P", "INPUT", "ACCEPT")
            for option in ("-F", "-X"):
                healthy.run(backend, option)
        for table in ("gate", "firewalld"):
            healthy.run("nft", "delete", "table", "inet", table, check=False)
        for switch in ("all", "default"):  # ufw sets more than rules
            healthy.run("sysctl", "-qw", f"net.ipv4.conf.{switch}.rp_filter=0")


def test_our_own_tables_are_missed(healthy: Patient) -> None:
    for table in ("bridge", "inet"):
        healthy.run("nft", "delete", "table", table, "tunrouter")
        (found,) = healthy.finds("firewall", f"nftables table {table} tunrouter missing")
        assert found.fix == "restart the agent"
        healthy.lab.inside(healthy.host.repair)
        assert healthy.ailments() == []
