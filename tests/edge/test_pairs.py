"""Device pairs as the kernel has them afterwards, and the envelope that they are asked for in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.edge import netns
from tunrouter.edge.netlink import Inside, Netlink, Pair, wire
from tunrouter.errors import HostError

T = TypeVar("T")
Within = Callable[[Callable[[], T]], T]
PAIR = Pair("vethwe1", "whose it is", "eth0", "02:00:00:00:00:01", "02:00:00:00:00:02", 1376)
ADDRESS, GATEWAY, RANGE = IPv4Address("10.32.1.7"), IPv4Address("10.32.1.1"), IPv4Network("10.32.0.0/12")
EVERYTHING = (IPv4Network("0.0.0.0/0"),)


@pytest.fixture
def pod() -> Iterator[Path]:
    name = f"trpair{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield Path("/run/netns") / name
    subprocess.run(["ip", "netns", "del", name], check=True)


def shown(*arguments: str, pod: Path | None = None) -> Any:
    argv = ["ip", *(("-n", pod.name) if pod else ()), "-j", "-d", *arguments]
    return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout or "[]")


def make(netlink: Netlink, pod: Path, pair: Pair = PAIR) -> None:
    with netns.Namespace(str(pod)) as namespace:
        netlink.pairs.make(pair, namespace.descriptor)


@pytest.mark.root
def test_a_port_is_all_that_was_asked(inside: Within[None], pod: Path) -> None:
    def work() -> None:
        with Netlink() as netlink:
            netlink.ensure_bridge("br", "02:00:00:00:00:09", 1376)
            make(netlink, pod)
            (here,), (there,) = shown("link", "show", PAIR.port), shown("link", "show", "eth0", pod=pod)
            assert (here["address"], here["mtu"], here["ifalias"], here["operstate"]) == (
                PAIR.port_mac, PAIR.mtu, PAIR.alias, "DOWN")  # fmt: skip
            assert (there["address"], there["mtu"], there["operstate"]) == (PAIR.mac, PAIR.mtu, "DOWN")
            for isolated in (True, False):
                netlink.pairs.join(PAIR.port, "br", PAIR.mac, isolated=isolated)
                (here,) = shown("link", "show", PAIR.port)
                port = here["linkinfo"]["info_slave_data"]
                assert here["master"] == "br"
                assert "UP" in here["flags"]
                assert (port["learning"], port["flood"]) == (False, False)
                assert port["group_fwd_mask"] == "0xfffd"
                assert (port["isolated"], port["hairpin"]) == (isolated, not isolated)
                (link,) = netlink.ports("br")
                assert [netlink.pairs.ensure_mode(link, isolated=i) for i in (isolated, not isolated)] == [False, True]
            fdb = subprocess.run(
                ["bridge", "fdb", "show", "dev", PAIR.port], check=True, capture_output=True, text=True
            ).stdout
            assert f"{PAIR.mac} master br static" in fdb

    inside(work)


@pytest.mark.root
def test_what_has_that_name_already_is_left_alone(inside: Within[None], pod: Path) -> None:
    def work() -> None:
        with Netlink() as netlink:
            subprocess.run(["ip", "link", "add", PAIR.port, "type", "bridge"], check=True)
            subprocess.run(["ip", "-n", pod.name, "link", "add", "eth1", "type", "bridge"], check=True)
            before = shown("link"), shown("link", pod=pod)
            for pair in (PAIR, PAIR._replace(port="vethwe2", interface="eth1")):
                with pytest.raises(HostError, match="File exists") as caught:
                    make(netlink, pod, pair)
                assert "remove the device" in caught.value.fix
            assert (shown("link"), shown("link", pod=pod)) == before

    inside(work)


@pytest.mark.root
def test_many_are_deleted_together_and_nothing_else(inside: Within[None], pod: Path) -> None:
    def work() -> None:
        with Netlink() as netlink:
            subprocess.run(["ip", "link", "add", "other", "type", "bridge"], check=True)
            before = {link["ifname"] for link in shown("link")}
            for number in range(5):
                make(netlink, pod, PAIR._replace(port=f"vethwe{number}", interface=f"eth{number}"))
            links = [link for link in netlink.links() if link.name.startswith("vethwe")]
            subprocess.run(["ip", "link", "del", links[2].name], check=True)
            netlink.pairs.delete(links)
            assert {link["ifname"] for link in shown("link")} == before
            netlink.pairs.delete(links)
            netlink.pairs.delete([])
            assert {link["ifname"] for link in shown("link")} == before

    inside(work)


def configure(pod: Path, interface: str, address: IPv4Address, *routes: IPv4Network) -> None:
    with netns.Namespace(str(pod)) as namespace, netns.within(namespace, lambda: Inside(interface)) as inside:
        inside.configure(address, PAIR.mac, 1300, GATEWAY, routes or EVERYTHING, RANGE)


def routes(pod: Path) -> set[tuple[str, str, int]]:
    return {(route["dst"], route["dev"], route.get("metric", 0)) for route in shown("route", pod=pod)}


@pytest.mark.root
def test_inside_it_is_as_asked_however_it_was_before(inside: Within[None], pod: Path) -> None:
    def work() -> None:
        with Netlink() as netlink:
            make(netlink, pod)
            subprocess.run(["ip", "-n", pod.name, "addr", "add", "10.99.0.1/24", "dev", "eth0"], check=True)
            subprocess.run(["ip", "-n", pod.name, "link", "set", "eth0", "address", "02:00:00:00:00:77"], check=True)
            for _ in range(2):
                configure(pod, "eth0", ADDRESS)
                (link,) = shown("addr", "show", "eth0", pod=pod)
                local = [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["family"] == "inet"]
                assert local == [f"{ADDRESS}/32"]
                assert (link["address"], link["mtu"]) == (PAIR.mac, 1300)
                assert "UP" in link["flags"]
                assert routes(pod) == {("default", "eth0", 0), (str(GATEWAY), "eth0", 0)}
                (default,) = (route for route in shown("route", pod=pod) if route["dst"] == "default")
                assert default["gateway"] == str(GATEWAY)
                assert "onlink" in default["flags"]
            assert "UP" in shown("link", "show", "lo", pod=pod)[0]["flags"]

    inside(work)


@pytest.mark.root
def test_addresses_that_go_along_with_others_are_gone_and_many_routes_are_all_there(
    inside: Within[None], pod: Path
) -> None:
    many = tuple(IPv4Network((0x0B000000 + (number << 8), 24)) for number in range(300))

    def work() -> None:
        with Netlink() as netlink:
            make(netlink, pod)
            for address in ("192.168.5.1/24", "192.168.5.2/24", "192.0.2.7 peer 192.0.2.8"):
                subprocess.run(["ip", "-n", pod.name, "addr", "add", *address.split(), "dev", "eth0"], check=True)
            configure(pod, "eth0", ADDRESS, *many)
            (link,) = shown("addr", "show", "eth0", pod=pod)
            assert [a["local"] for a in link["addr_info"] if a["family"] == "inet"] == [str(ADDRESS)]
            assert {dst for dst, _, _ in routes(pod)} == {str(GATEWAY), *map(str, many)}

    inside(work)


@pytest.mark.root
def test_a_second_interface_leaves_the_first_its_routes(inside: Within[None], pod: Path) -> None:
    def work() -> None:
        with Netlink() as netlink:
            for number in range(2):
                make(netlink, pod, PAIR._replace(port=f"vethwe{number}", interface=f"eth{number}"))
                configure(pod, f"eth{number}", ADDRESS + number)
            (first,) = (index for dst, dev, index in routes(pod) if (dst, dev) == ("default", "eth1"))
            assert first > 1024
            assert {("default", "eth0", 0), (str(GATEWAY), "eth0", 0), (str(RANGE), "eth1", 0)} <= routes(pod)

    inside(work)


@pytest.mark.root
def test_what_is_there_is_read_as_it_is(inside: Within[None], pod: Path) -> None:
    def work() -> None:
        with Netlink() as netlink:
            make(netlink, pod)
            configure(pod, "eth0", ADDRESS, IPv4Network("10.96.0.0/12"))
            with netns.Namespace(str(pod)) as namespace, netns.within(namespace, lambda: Inside("eth0")) as found:
                link = found.link()
                assert link is not None
                assert found.addresses(link.index) == [IPv4Interface(f"{ADDRESS}/32")]
                assert found.addresses(link.index + 1) == []
                assert {way.prefix for way in found.ways() if way.device == link.index} == {
                    IPv4Network("10.96.0.0/12"),
                    IPv4Network(f"{GATEWAY}/32"),
                }
            with netns.Namespace(str(pod)) as namespace, netns.within(namespace, lambda: Inside("eth9")) as found:
                assert found.link() is None
                with pytest.raises(HostError, match="eth9 is gone"):
                    found.configure(ADDRESS, PAIR.mac, 1300, GATEWAY, EVERYTHING, RANGE)

    inside(work)


@pytest.mark.root
def test_of_several_requests_all_are_done_and_the_first_that_fails_is_told(inside: Within[None]) -> None:
    def work() -> None:
        with wire.Wire(0) as link:
            nobody = wire.Message(16, 0, b"\0" * 16 + wire.text(3, "nobody"))
            again = wire.Message(16, wire.CREATE | wire.EXCLUSIVE, b"\0" * 16 + wire.text(3, "lo"))
            bridge = b"\0" * 16 + wire.text(3, "br") + wire.nested(18, wire.text(1, "bridge"))
            with pytest.raises(OSError, match="No such device"):
                link.tell(nobody, wire.Message(16, wire.CREATE, bridge), again)
            assert shown("link", "show", "br")
            assert len(link.ask(18, b"\0" * 16, wire.DUMP)) == 2, "and no answer is taken for another's"

    inside(work)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_envelope(data: bytes) -> None:
    for _, _, _, body in wire.messages_of(data):
        assert len(body) <= len(data)
    for _, value in wire.attributes(data):
        assert len(value) <= len(data)


@given(st.lists(st.tuples(st.integers(0, wire.KIND), st.binary(max_size=40))))
def test_attributes_are_read_as_they_were_written(parts: list[tuple[int, bytes]]) -> None:
    written = b"".join(wire.attribute(kind, data) for kind, data in parts)
    assert [(kind, bytes(data)) for kind, data in wire.attributes(written)] == parts
