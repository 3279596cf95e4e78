"""The edges towards the kernel, each in a namespace of its own."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import TypeVar

import pytest

from tunrouter.edge import netns, sysctl
from tunrouter.edge.firewall import legacy
from tunrouter.edge.netlink import Netlink, Route, Watch, nft
from tunrouter.errors import ConfigError, HostError

pytestmark = pytest.mark.root

T = TypeVar("T")
Inside = Callable[[Callable[[], T]], T]
TABLE = ("inet", "tunrouter")
TEXT = """
table inet tunrouter {
  set s { type ifname . ipv4_addr; elements = { "a" . 10.0.0.1, "b" . 10.0.0.2 } }
  chain c { type filter hook forward priority 0; iifname "a" drop; }
}
"""


def test_fingerprints_see_our_changes_and_no_others(inside: Inside[None]) -> None:
    def work() -> None:
        assert nft.fingerprint(TABLE) == b""
        nft.apply(TEXT)
        before, generation = nft.fingerprint(TABLE), nft.generation()
        assert before
        assert (nft.fingerprint(TABLE), nft.generation()) == (before, generation)
        nft.apply("table inet other { chain x { type filter hook input priority 0; }; }")
        assert nft.generation() != generation
        assert nft.fingerprint(TABLE) == before
        for change in (
            'add element inet tunrouter s { "c" . 10.0.0.3 }',
            "add rule inet tunrouter c accept",
            "flush table inet tunrouter",
            "add chain inet tunrouter d",
            "chain inet tunrouter c { policy drop; }",
        ):
            known = nft.fingerprint(TABLE)
            nft.apply(change)
            assert nft.fingerprint(TABLE) != known, change
        assert nft.delete(TABLE, ("bridge", "tunrouter")) == ["table inet tunrouter"]
        assert nft.delete(TABLE) == []

    inside(work)


def elements(*names: str) -> nft.Elements:
    keys = (name.encode().ljust(16, b"\0") + bytes((10, 0, 0, 1)) for name in names)
    return nft.Elements("inet", "tunrouter", "s", frozenset(keys))


def test_elements_come_and_go_as_long_as_nobody_else_writes(inside: Inside[None]) -> None:
    def work() -> None:
        nft.apply(TEXT.replace("10.0.0.2", "10.0.0.1"))
        rest, generation = nft.fingerprint(TABLE, without=("s",)), nft.generation()
        assert nft.elements(elements()) == elements("a", "b")
        assert nft.replace(elements("a"), elements("c", "d"), generation)
        assert nft.elements(elements()) == elements("b", "c", "d")
        assert nft.generation() == generation + 1
        assert nft.fingerprint(TABLE, without=("s",)) == rest
        listed = subprocess.run(["nft", "list", "set", *TABLE, "s"], check=True, capture_output=True, text=True).stdout
        assert '"c" . 10.0.0.1' in listed
        assert '"a"' not in listed
        refused = (
            (elements("c"), elements(), generation),  # somebody wrote since then
            (elements("x"), elements("y"), generation + 1),  # it is not what it is taken for
            (elements(), elements(*map(str, range(2000))), generation + 1),
        )
        for gone, come, at in refused:
            assert not nft.replace(gone, come, at)
            assert nft.elements(elements()) == elements("b", "c", "d")
            assert nft.generation() == generation + 1

    inside(work)


def test_a_transaction_is_all_or_nothing(inside: Inside[None]) -> None:
    def work() -> None:
        with pytest.raises(HostError, match="nftables refused our rules"):
            nft.apply(TEXT + "\nadd rule inet nowhere c accept\n")
        assert not nft.present(*TABLE)

    inside(work)


def test_the_monitor_hears_every_change_once(inside: Inside[None]) -> None:
    def work() -> None:
        with closing(nft.Monitor()) as monitor:
            assert not monitor.drain()
            nft.apply(TEXT)
            assert monitor.drain()
            assert not monitor.drain()

    inside(work)


def test_a_missing_nft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="apt-get install nftables"):
        nft.apply("")


@pytest.mark.parametrize(("tool", "version"), [("iptables-legacy", 4), ("ip6tables-legacy", 6)])
def test_legacy_tables_are_compared_without_a_fork(inside: Inside[None], tool: str, version: int) -> None:
    def work() -> None:
        def change(*arguments: str) -> bytes:
            subprocess.run([tool, *arguments], check=True)
            return legacy.fingerprint(version)

        assert legacy.fingerprint(version) == b""
        assert not legacy.loaded(version), "asking has not loaded it"
        prints = [
            change("-P", "FORWARD", "ACCEPT"),
            change("-P", "FORWARD", "DROP"),
            change("-A", "INPUT", "-i", "lo", "-j", "ACCEPT"),
            change("-F", "INPUT"),
        ]
        assert len(set(prints[:3])) == 3
        assert prints[3] == prints[1]
        change("-A", "INPUT", "-j", "ACCEPT")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        before = legacy.fingerprint(version)
        subprocess.run(["ping", "-c1", "::1" if version == 6 else "127.0.0.1"], check=True, capture_output=True)
        assert legacy.fingerprint(version) == before, "counters are no change"

    inside(work)


def test_netlink_brings_the_kernel_to_what_is_asked(inside: Inside[None]) -> None:
    address, other = IPv4Interface("10.32.1.1/24"), IPv4Interface("10.32.2.1/24")
    wanted = Route(prefix=IPv4Network("10.40.0.0/16"), device="br", source="10.32.1.1", mtu=1300)

    def work() -> None:
        with Netlink() as netlink:
            assert netlink.link("br") is None
            assert netlink.ensure_bridge("br", "02:00:00:00:00:01", 1376)
            assert netlink.ensure_bridge("br", "02:00:00:00:00:01", 1376) == []
            secondary = IPv4Interface("10.32.2.2/24")
            assert netlink.ensure_addresses("br", (other, secondary))
            assert netlink.ensure_addresses("br", (address,)) == ["br address 10.32.1.1/24"]
            assert netlink.ensure_addresses("br", (address,)) == []
            assert netlink.remove_addresses("br", but=(address,)) == ["br lost 10.32.2.1/24", "br lost 10.32.2.2/24"]
            assert netlink.addresses("br") == [address]
            assert netlink.remove_addresses("br", but=(address,)) == []
            assert [netlink.ensure_route(wanted), netlink.ensure_route(wanted)] == [True, False]
            assert netlink.path("10.40.1.1") == ("br", 1300)
            assert wanted in netlink.routes()
            assert [netlink.delete_route(wanted), netlink.delete_route(wanted)] == [True, False]
            assert netlink.path("10.40.1.1") is None
            assert netlink.default_mtu(4) == 0
            with pytest.raises(HostError, match="no network device nothing"):
                netlink.ensure_addresses("nothing", (address,))
            assert [netlink.delete_link("br"), netlink.delete_link("br")] == [True, False]

    inside(work)


def test_the_watch_hears_links_addresses_and_routes(inside: Inside[None]) -> None:
    commands = (
        "link add name br9 type bridge",
        "link set br9 up",
        "addr add 10.9.9.1/24 dev br9",
        "route add 10.8.0.0/16 dev br9",
    )

    def work() -> None:
        with closing(Watch()) as watch:
            for command in commands:
                assert not watch.drain()
                subprocess.run(["ip", *command.split()], check=True)
                assert watch.drain()

    inside(work)


def test_sysctls_are_those_of_the_thread_s_namespace(inside: Inside[bool]) -> None:
    here = sysctl.read("net.ipv4.ip_forward")
    wanted = 0 if inside(lambda: sysctl.read("net/ipv4/ip_forward") == "1") else 1
    assert inside(lambda: sysctl.write("net.ipv4.ip_forward", wanted))
    assert not inside(lambda: sysctl.write("net.ipv4.ip_forward", wanted))
    assert sysctl.read("net.ipv4.ip_forward") == here
    assert sysctl.read("net.ipv4.no_such_switch") is None
    assert not sysctl.write_if_present("net.ipv4.no_such_switch", 1)
    with pytest.raises(HostError, match="no sysctl"):
        sysctl.write("net.ipv4.no_such_switch", 1)


def test_the_hosts_switches_mounted_elsewhere_are_those_of_the_thread_s_namespace(
    inside: Inside[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net").mkdir()
    subprocess.run(["mount", "--bind", "/proc/sys/net", tmp_path / "net"], check=True)
    try:
        monkeypatch.setattr(sysctl, "HOSTS", tmp_path)
        monkeypatch.setattr(sysctl, "ROOT", tmp_path / "read only")
        here = Path("/proc/sys/net/ipv4/ip_forward").read_text()
        wanted = 0 if inside(lambda: sysctl.read("net/ipv4/ip_forward") == "1") else 1
        assert inside(lambda: sysctl.write("net.ipv4.ip_forward", wanted))
        assert inside(lambda: Path("/proc/sys/net/ipv4/ip_forward").read_text() == f"{wanted}\n")
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == here
    finally:
        subprocess.run(["umount", tmp_path / "net"], check=True)


def test_work_in_a_namespace_leaves_the_thread_where_it_was(inside: Inside[None]) -> None:
    before = netns.own_inode()
    path = f"/run/netns/tredge{os.getpid()}"
    with netns.Namespace(path) as namespace:
        assert netns.within(namespace, netns.own_inode) == namespace.inode != before
        with pytest.raises(ZeroDivisionError):
            netns.within(namespace, lambda: 1 // 0)
    assert netns.own_inode() == before
    with pytest.raises(ConfigError):
        netns.Namespace("/etc/passwd")


def test_a_process_at_its_limit_is_told_so_and_does_not_end() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(HostError, match="nft cannot be started: Too many open files"):
            nft.apply("")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
