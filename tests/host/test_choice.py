"""Which address the tunnel uses: the choice among what a host has, and what is said where there is none."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tunrouter.edge.netlink import Address, Link
from tunrouter.errors import HostError
from tunrouter.host.choice import EVERY, Chosen, Here, Wish, choose

ETH0, ETH1, VLAN = Chosen("192.0.2.7", "eth0"), Chosen("198.51.100.7", "eth1"), Chosen("2001:db8::7", "vlan2")


def link(index: int, name: str, *, up: bool = True) -> Link:
    return Link(index=index, name=name, kind="", mac="", mtu=1500, queue=0, up=up, master=0, alias="")


def address(device: str, text: str, *, settled: bool = True, lasting: bool = True) -> Address:
    return Address(device, INDICES[device], ip_address(text), settled=settled, lasting=lasting)


INDICES = {"lo": 1, "eth0": 2, "eth1": 3, "vlan2": 4, "bare": 5, "dark": 6, "weave": 7}
LINKS = {name: link(index, name, up=name != "dark") for name, index in INDICES.items()}
ADDRESSES = (
    address("lo", "127.0.0.1"),
    address("lo", "203.0.113.7"),
    address("eth0", "192.0.2.7"),
    address("eth0", "192.0.2.8"),
    address("eth1", "198.51.100.7"),
    address("dark", "198.51.100.99"),
    address("weave", "10.32.1.1"),
    address("eth0", "2001:db8:1::7"),
    address("vlan2", "fe80::7"),
    address("vlan2", "2001:db8::70", lasting=False),
    address("vlan2", "2001:db8::7"),
    address("bare", "fe80::9"),
)
ROUTES = {
    "192.0.2.1": ("eth0", "192.0.2.7"),
    "2001:db8::1": ("vlan2", "2001:db8::7"),
    "203.0.113.9": ("eth1", "203.0.113.7"),
    "203.0.113.10": ("vlan2", "::1"),
    "10.32.9.9": ("weave", "10.32.1.1"),
    "192.0.2.7": ("lo", "192.0.2.7"),
    "9.9.9.9": ("bare", ""),
}


def here(*addresses: Address) -> Here:
    return Here(LINKS, addresses or ADDRESSES, frozenset({"weave", "tunrouter0"}))


def chosen(wish: Wish, before: Chosen = EVERY, among: Here | None = None) -> Chosen:
    return choose(wish, among or here(), lambda to: ROUTES.get(to, ("", "")), before)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(), EVERY),
        (Wish(ifaces=("eth0",)), ETH0),
        (Wish(ifaces=("eth1",)), ETH1),
        (Wish(ifaces=("vlan2",)), VLAN),
        (Wish(ifaces=("eth9", "dark", "eth1", "eth0")), ETH1),
        (Wish(ifaces=("192.0.2.99", "2001:db8:1::7")), Chosen("2001:db8:1::7", "eth0")),
        (Wish(ifaces=("203.0.113.7",)), Chosen("203.0.113.7", "lo")),
        (Wish(ifaces=("lo",)), Chosen("203.0.113.7", "lo")),
        (Wish(can_reach="192.0.2.1"), ETH0),
        (Wish(can_reach="2001:db8::1"), VLAN),
        (Wish(can_reach="203.0.113.9"), Chosen("203.0.113.7", "lo")),
        (Wish(can_reach="203.0.113.10"), VLAN),
        (Wish(address="198.51.100.7"), ETH1),
        (Wish(address="127.0.0.1"), Chosen("127.0.0.1", "lo")),
        (Wish(address="0.0.0.0"), Chosen("0.0.0.0")),
        (Wish(address="192.0.2.99", lenient=True), EVERY),
    ],
    ids=str,
)
def test_what_is_wished_for_is_found(wish: Wish, expected: Chosen) -> None:
    assert chosen(wish) == expected


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(ifaces=("eth9",)), ["no network device eth9", "eth0, eth1", "vlan2"]),
        (Wish(ifaces=("eth9", "dark")), ["no network device eth9"]),
        (Wish(ifaces=("dark",)), ["dark is down", "ip link set dark up"]),
        (Wish(ifaces=("bare",)), ["bare has no address that other hosts know", "ip address add"]),
        (Wish(address="192.0.2.99"), ["does not have the address 192.0.2.99", "eth1"]),
        (Wish(address="198.51.100.99"), ["dark is down"]),
        (Wish(can_reach="8.8.8.8"), ["no route to 8.8.8.8", "ip route get 8.8.8.8"]),
        (Wish(can_reach="10.32.9.9"), ["our own device weave"]),
        (Wish(can_reach="192.0.2.7"), ["this host's own"]),
        (Wish(can_reach="9.9.9.9"), ["bare has no address"]),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_told(wish: Wish, words: list[str]) -> None:
    with pytest.raises(HostError) as error:
        chosen(wish)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "weave" not in error.value.fix


def test_what_is_in_use_stays_while_it_lasts() -> None:
    eth0 = Wish(ifaces=("eth0",))
    second = Chosen("192.0.2.8", "eth0")
    assert chosen(eth0, second) == second, "another that comes first is no reason"
    fading = here(address("eth0", "192.0.2.8", lasting=False), address("eth0", "192.0.2.7"))
    assert chosen(eth0, second, fading) == ETH0
    assert chosen(eth0, second, here(address("eth0", "192.0.2.8", lasting=False))) == second
    assert chosen(eth0, second, here(address("eth0", "192.0.2.7"))) == ETH0


def test_the_family_stays_while_the_device_has_one_of_it() -> None:
    eth0, six = Wish(ifaces=("eth0",)), Chosen("2001:db8:1::99", "eth0")
    assert chosen(eth0, six) == Chosen("2001:db8:1::7", "eth0")
    assert chosen(eth0, six, here(address("eth0", "192.0.2.7"))) == ETH0


def test_an_address_that_is_not_settled_is_none_yet() -> None:
    tentative = here(address("vlan2", "2001:db8::7", settled=False))
    for wish in (Wish(ifaces=("vlan2",)), Wish(address="2001:db8::7"), Wish(can_reach="2001:db8::1")):
        with pytest.raises(HostError):
            chosen(wish, among=tentative)


def test_the_trace_changes_with_what_packets_leave_by_and_not_with_our_own_devices() -> None:
    before = here()
    more = here(*ADDRESSES, address("weave", "10.32.1.9"), address("dark", "192.0.2.55"))
    assert more.trace == before.trace
    assert here(*ADDRESSES[:-2]).trace != before.trace
    anew = Here({**LINKS, "eth0": link(22, "eth0")}, tuple(a for a in ADDRESSES if a.device != "eth0"), before.own)
    assert anew.trace != before.trace


def test_an_address_of_all_is_told_to_nobody() -> None:
    assert [Chosen(text).told for text in ("", "0.0.0.0", "::", "192.0.2.7")] == ["", "", "", "192.0.2.7"]
    assert Chosen("192.0.2.7").speaks_to("192.0.2.9")
    assert not Chosen("2001:db8::7").speaks_to("192.0.2.9")
    assert EVERY.speaks_to("2001:db8::9")
