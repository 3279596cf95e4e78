"""Which address of this host the tunnel uses: what is wished for, and what there is.

Law: one address, IPv4 where the device has both, or all of them. One that is in use stays as long as it is there and
lasts, whatever else comes; of others the kernel's order counts, and those that go by themselves (deprecated, temporary)
come last. What cannot be had is an error that says what there is instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import msgspec

from tunrouter.edge.netlink import Address, Link, Netlink
from tunrouter.errors import HostError

SHOWN: Final = 12
"""Devices that an error lists: a node has one for each of its pods."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """At most one of the three; without any, all addresses."""

    ifaces: tuple[str, ...] = ()
    """Devices, or addresses: the first that can be had."""
    can_reach: str = ""
    """What packets to there leave with."""
    address: str = ""
    """This very one."""
    said: str = ""
    """Where it is said, for people."""
    lenient: bool = False
    """Where it cannot be had, all addresses do."""

    @property
    def of_all(self) -> bool:
        return not (self.ifaces or self.can_reach or self.address)

    def __str__(self) -> str:
        wanted = ",".join(self.ifaces) or self.can_reach or self.address
        return f"{self.said} {wanted}".strip() if wanted else "all addresses"


class Chosen(msgspec.Struct, frozen=True):
    """Both empty: all addresses. An address of all of a family, which only its user asks for, is on no device."""

    address: str = ""
    device: str = ""

    @property
    def told(self) -> str:
        """The address that others find this node at, if it is one."""
        return "" if not self.address or ip_address(self.address).is_unspecified else self.address

    def speaks_to(self, address: str) -> bool:
        """Both are of one family."""
        return not self.address or (":" in self.address) == (":" in address)

    def __str__(self) -> str:
        return f"{self.address} ({self.device})" if self.device else self.address or "all addresses"


EVERY: Final = Chosen()


class Here(msgspec.Struct, frozen=True):
    """What this host has, as of one look."""

    links: dict[str, Link]
    addresses: tuple[Address, ...]
    own: frozenset[str] = frozenset()
    """Our own devices, through which the tunnel cannot pass."""

    def of(self, device: str) -> list[Address]:
        return [each for each in self.addresses if each.device == device and _usable(each)]

    def having(self, address: str) -> Address | None:
        wanted = ip_address(address)
        return next((each for each in self.addresses if each.ip == wanted and each.settled), None)

    @property
    def trace(self) -> frozenset[tuple[int, str]]:
        """What changes when packets may leave in another way: devices and their addresses, but for our own."""
        up = {link.index for link in self.links.values() if link.up and link.name not in self.own}
        return frozenset((each.index, str(each.ip)) for each in self.addresses if each.settled and each.index in up)

    def shown(self) -> str:
        """For who named another: devices that have an address."""
        found = dict.fromkeys(each.device for each in self.addresses if _usable(each) and each.device not in self.own)
        names = [name for name in found if name in self.links]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return ", ".join(names[:SHOWN]) + more if names else "none"


Way = Callable[[str], tuple[str, str]]
"""Device and source address that packets to an address leave with, both empty if there is no way."""


def look(netlink: Netlink, own: Collection[str]) -> Here:
    links = {link.name: link for link in netlink.links()}
    return Here(links, tuple(netlink.own_addresses()), frozenset(own))


def way(netlink: Netlink, address: str) -> tuple[str, str]:
    found = netlink.path(address)
    return (found[0], netlink.source(address)) if found is not None else ("", "")


def choose(wish: Wish, here: Here, leads: Way, before: Chosen = EVERY) -> Chosen:
    """Raises HostError for a wish that cannot be fulfilled now. `before` is what is in use."""
    if wish.of_all:
        return EVERY
    try:
        if wish.can_reach:
            return _reaching(wish, here, leads(wish.can_reach), before)
        if wish.address:
            return _at(wish, here, wish.address)
        return _first(wish, here, before)
    except HostError:
        if wish.lenient:
            return EVERY
        raise


def _first(wish: Wish, here: Here, before: Chosen) -> Chosen:
    """Of several wishes the first that can be had; otherwise what is wrong with the first."""
    refused = []
    for wanted in wish.ifaces:
        try:
            return _at(wish, here, wanted) if _is_address(wanted) else _on(wish, here, wanted, before)
        except HostError as error:
            refused.append(error)
    raise refused[0]


def _at(wish: Wish, here: Here, address: str) -> Chosen:
    if ip_address(address).is_unspecified:
        return Chosen(address)
    found = here.having(address)
    if found is None:
        what = f"{wish}: this host does not have the address {address}"
        raise HostError(what, f"`ip address` shows which it has; devices with addresses: {here.shown()}")
    _refuse_down(wish, here, found.device)
    return Chosen(address, found.device)


def _on(wish: Wish, here: Here, device: str, before: Chosen) -> Chosen:
    if device not in here.links:
        what = f"{wish}: there is no network device {device}"
        raise HostError(what, f"name one that is there: {here.shown()}")
    _refuse_down(wish, here, device)
    return _best(wish, device, here.of(device), before)


def _reaching(wish: Wish, here: Here, led: tuple[str, str], before: Chosen) -> Chosen:
    device, source = led
    if not device:
        what = f"{wish}: there is no route to {wish.can_reach}"
        raise HostError(what, f"`ip route get {wish.can_reach}` says why; or give --iface one of: {here.shown()}")
    if device in here.own or device == "lo":
        whose = "is this host's own" if device == "lo" else f"leads into our own device {device}"
        raise HostError(f"{wish}: the way to {wish.can_reach} {whose}", "give the address of another host")
    found = here.having(source) if source else None
    if found is not None and _usable(found):
        return Chosen(source, found.device)
    return _best(wish, device, here.of(device), before)


def _best(wish: Wish, device: str, there: Sequence[Address], before: Chosen) -> Chosen:
    if not there:
        what = f"{wish}: {device} has no address that other hosts know"
        raise HostError(what, f"wait for its DHCP lease, or: ip address add ADDRESS/LENGTH dev {device}")
    best = min(there, key=lambda each: _rank(each, before))
    return Chosen(str(best.ip), device)


def _rank(address: Address, before: Chosen) -> tuple[bool, bool, bool, bool]:
    """The first of the smallest is taken. Another family than before would be another set of sockets."""
    other_family = not before.speaks_to(str(address.ip)) if before.address else address.ip.version == 6
    local = isinstance(address.ip, IPv4Address) and address.ip.is_link_local
    return other_family, not address.lasting, local, str(address.ip) != before.address


def _refuse_down(wish: Wish, here: Here, device: str) -> None:
    link = here.links.get(device)
    if link is not None and not link.up:
        raise HostError(f"{wish}: {device} is down", f"ip link set {device} up")


def _usable(address: Address) -> bool:
    ip = address.ip
    if not address.settled or ip.is_loopback:
        return False
    return not (isinstance(ip, IPv6Address) and ip.is_link_local)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
