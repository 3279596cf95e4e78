"""What Weave Net leaves on a host is named, piece by piece, and gone when the commands have run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.patients import Patient
from tests.host.test_strangers import add
from tunrouter.doctor import leftovers

pytestmark = pytest.mark.root

RULES = """
*nat
:WEAVE - [0:0]
:WEAVE-CANARY - [0:0]
-A POSTROUTING -j WEAVE
-A WEAVE -m set --match-set weaver-no-masq-local dst -j RETURN
-A WEAVE -s 10.32.0.0/12 -d 224.0.0.0/4 -j RETURN
-A WEAVE ! -s 10.32.0.0/12 -d 10.32.0.0/12 -j MASQUERADE
COMMIT
*mangle
:WEAVE-CANARY - [0:0]
COMMIT
*filter
:WEAVE-NPC - [0:0]
:WEAVE-NPC-DEFAULT - [0:0]
:WEAVE-NPC-EGRESS - [0:0]
:WEAVE-NPC-INGRESS - [0:0]
-A INPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 6784 -m comment --comment "Block non-local access to Weave Net control port" -j DROP
-A INPUT -i weave -j WEAVE-NPC-EGRESS
-A FORWARD -i weave -m comment --comment "NOTE: this must go before '-j KUBE-FORWARD'" -j WEAVE-NPC-EGRESS
-A FORWARD -o weave -m comment --comment "NOTE: this must go before '-j KUBE-FORWARD'" -j WEAVE-NPC
-A FORWARD -o weave -m state --state NEW -j NFLOG --nflog-group 86
-A FORWARD -o weave -j DROP
-A FORWARD -i weave ! -o weave -j ACCEPT
-A WEAVE-NPC -m state --state RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-DEFAULT
-A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-INGRESS
-A WEAVE-NPC-DEFAULT -m set --match-set weave-iuZcey(5DeXbzgRFs8Szo]+@p dst -j ACCEPT
-A WEAVE-NPC-EGRESS -m state --state RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""  # noqa: E501
SETS = ("weave-iuZcey(5DeXbzgRFs8Szo]+@p", "weaver-no-masq-local")


@pytest.mark.parametrize("backend", ["iptables-nft", "iptables-legacy"])
def test_rules_and_sets_are_named_and_taken_away(healthy: Patient, backend: str) -> None:
    for name in SETS:
        healthy.run("ipset", "create", name, "hash:ip")
    healthy.run("ipset", "restore", text="".join(f"add {SETS[1]} 10.33.{n >> 8}.{n & 255}\n" for n in range(4096)))
    healthy.run(backend, "-A", "FORWARD", "-i", "other", "-j", "ACCEPT")
    before = healthy.run(f"{backend}-save", "-t", "filter").splitlines()
    healthy.run(f"{backend}-restore", "--noflush", text=RULES)
    found = healthy.ailments()
    rules, sets = (f for f in found if f.check == "leftovers")
    assert rules.level == "fail"
    assert f"{backend} has chains of Weave Net: " in rules.text
    assert "packets to pods meet them" in rules.text
    assert (sets.level, sets.text) == ("warn", f"ipsets of Weave Net: {', '.join(SETS)}")
    assert any(f.check == "firewall" and "FORWARD -o weave -j DROP" in f.text for f in found)
    healthy.obey([rules, sets])
    assert healthy.ailments() == []
    after = healthy.run(f"{backend}-save", "-t", "filter").splitlines()
    assert [line for line in after if line.startswith("-A")] == [
        *(line for line in before if line.startswith("-A")),
        "-A FORWARD -i weave ! -o weave -j ACCEPT",
    ], "what is not Weave Net's for certain stays"
    healthy.run(backend, "-F", "FORWARD")


def test_chains_that_nothing_comes_to_are_only_in_the_way(healthy: Patient) -> None:
    healthy.run("iptables-nft", "-N", "WEAVE-EXPOSE")
    (found,) = healthy.finds("leftovers", "WEAVE-EXPOSE")
    assert found.level == "warn"
    healthy.obey([found])
    assert healthy.ailments() == []
    healthy.run("iptables-nft", "-N", "WEAVER")
    assert healthy.ailments() == [], "a name that only looks like one of its"
    healthy.run("iptables-nft", "-X", "WEAVER")


def test_devices_are_named_and_ours_are_not(healthy: Patient) -> None:
    add(healthy.lab, "vethwe-bridge", "veth peer name vethwe-datapath")
    healthy.run("ip", "link", "set", "vethwe-bridge", "master", "weave")
    add(healthy.lab, "vethwepl0a1b2c3", "veth peer name other")
    add(healthy.lab, "datapath", "bridge")
    add(healthy.lab, "vxlan-6784", "vxlan id 2 dstport 6784")
    (found,) = healthy.finds("leftovers", "devices of Weave Net: datapath, vethwe-bridge, vethwe-datapath and 2 more")
    healthy.obey([found])
    assert healthy.ailments() == []


def test_files_are_named_and_removed(healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "STATE", tmp_path / "weave")
    binaries, networks = Path(healthy.known.cni_bin_dir), Path(healthy.known.cni_conf_dir)
    for directory in (leftovers.STATE, binaries, networks):
        directory.mkdir()
    (leftovers.STATE / "weave-netdata.db").write_text("")
    (binaries / "weave-plugin-2.8.1").write_text("")
    for name in ("weave-net", "weave-ipam"):
        (binaries / name).symlink_to("weave-plugin-2.8.1")
    (binaries / "portmap").write_text("")
    network = networks / "10-weave.conflist"
    network.write_text('{"plugins": [{"type": "weave-net"}, {"type": "portmap"}]}')
    for path in (leftovers.STATE / "other.db", networks / "10-weave.conf"):
        path.write_text("somebody else's")
    found = healthy.finds("leftovers", f"files of Weave Net: {tmp_path}/weave/weave-netdata.db", "and 2 more")
    healthy.obey(found)
    assert healthy.ailments() == []
    assert [path.name for path in leftovers.STATE.iterdir()] == ["other.db"]
    assert [path.name for path in binaries.iterdir()] == ["portmap"]
    assert [path.name for path in networks.iterdir()] == ["10-weave.conf"]
