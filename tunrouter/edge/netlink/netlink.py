"""Links, addresses and routes of this host, through pyroute2's synchronous classes.

Law: every method brings the kernel to what is asked, whatever was there before, and says whether it had to change
something. Everything here blocks and belongs into one thread that runs no event loop (pyroute2's synchronous classes
fail beside a running one). Only IPv4 addresses and routes are touched: pods have no others yet.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection
from typing import Any, Final

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tunrouter.edge.netlink.faults import explained, refused
from tunrouter.edge.netlink.links import Link, Links
from tunrouter.edge.netlink.pairs import Pairs
from tunrouter.edge.netlink.wire import Wire
from tunrouter.errors import ConfigError, HostError

PROTOCOL: Final = 83
"""Marks our routes (`proto 83` in `ip route`), so that they are found and removed whoever made them."""
MAIN_TABLE: Final = 254
LOCAL_TABLE: Final = 255
ROUTE_TYPES: Final = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
IFA_F_TEMPORARY, IFA_F_DEPRECATED, IFA_UNSETTLED = 0x01, 0x20, 0x40 | 0x08
"""The last: tentative, or somebody else's by duplicate address detection."""
RT_SCOPE_NOWHERE: Final = 255
"""In a deletion: whatever scope the route has."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    prefix: ipaddress.IPv4Network
    device: str
    """Empty where the route has none (unreachable) or several (multipath)."""
    kind: str = "unicast"
    source: str = ""
    metric: int = 0
    mtu: int = 0
    protocol: int = PROTOCOL
    table: int = MAIN_TABLE

    def __str__(self) -> str:
        return f"{'' if self.kind == 'unicast' else self.kind + ' '}{self.prefix}" + (
            f" dev {self.device}" if self.device else ""
        )


class Address(msgspec.Struct, frozen=True):
    """An address of this host, of either family, and what the kernel says of it."""

    device: str
    index: int
    """Of the device; one that was made anew has another."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    settled: bool = True
    """It can be used: nobody else has it, as far as IPv6 asks that."""
    lasting: bool = True
    """It is neither deprecated nor one of IPv6's temporary ones."""


class Netlink:
    """One netlink socket in the namespace the creating thread is in."""

    def __init__(self) -> None:
        self._ip = IPRoute()
        self._wire = Wire(socket.NETLINK_ROUTE)
        self._links = Links(self._wire)
        self.pairs = Pairs(self._wire, self._links)

    def close(self) -> None:
        self._wire.close()
        self._ip.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- links ---------------------------------------------------------------------------------------------------
    def link(self, name: str) -> Link | None:
        return self._links.one(name)

    def links(self) -> list[Link]:
        return self._links.all()

    def require(self, name: str) -> Link:
        found = self.link(name)
        if found is None:
            raise HostError(f"there is no network device {name}", "restart the agent, which makes it")
        return found

    def ports(self, bridge: str) -> list[Link]:
        found = self.link(bridge)
        if found is None:
            return []
        return [link for link in self.links() if link.master == found.index]

    def ensure_bridge(self, name: str, mac: str, mtu: int) -> list[str]:
        """A bridge without spanning tree, up at once; it keeps its address whatever port comes or goes."""
        found, changed = self.link(name), []
        if found is not None and found.kind != "bridge":
            what = f"device {name} exists and is no bridge but {found.kind or 'hardware'}"
            raise ConfigError(what, "rename it, or choose another bridge name")
        if found is None:
            with explained(f"cannot make the bridge {name}"):
                self._ip.link("add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0)
            changed.append(f"bridge {name}")
        return changed + self.ensure_link(name, mtu=mtu, mac=mac)

    def ensure_link(self, name: str, *, mtu: int, mac: str = "", queue: int = 0) -> list[str]:
        """The device is up and has this MTU, address and queue length (where given)."""
        found = self.require(name)
        wanted: dict[str, Any] = {}
        if found.mtu != mtu:
            wanted["mtu"] = mtu
        if mac and found.mac != mac:
            wanted["address"] = mac
        if queue and found.queue != queue:
            wanted["txqlen"] = queue
        if not found.up:
            wanted["state"] = "up"
        if wanted:
            with explained(f"cannot configure {name}"):
                self._ip.link("set", index=found.index, **wanted)
        return [f"{name} {key} {value}" for key, value in wanted.items()]

    def delete_link(self, name: str) -> bool:
        found = self.link(name)
        if found is not None:
            self.pairs.delete([found])
        return found is not None

    # --- addresses -----------------------------------------------------------------------------------------------
    def addresses(self, name: str = "") -> list[ipaddress.IPv4Interface]:
        index = {"index": self.require(name).index} if name else {}
        with explained("cannot list the addresses"):
            found = self._ip.get_addr(family=2, **index)
            return [ipaddress.IPv4Interface(f"{m.get('IFA_LOCAL')}/{m['prefixlen']}") for m in found]

    def ensure_addresses(self, name: str, wanted: Collection[ipaddress.IPv4Interface]) -> list[str]:
        """`name` has these addresses, and maybe others."""
        index, there = self.require(name).index, self.addresses(name)
        changed = []
        for address in wanted:
            if address not in there:
                with explained(f"cannot give {name} the address {address}"):
                    self._ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
                changed.append(f"{name} address {address}")
        return changed

    def remove_addresses(self, name: str, but: Collection[ipaddress.IPv4Interface]) -> list[str]:
        """`name` has no addresses but these. Routes whose source goes along are gone."""
        index, changed = self.require(name).index, []
        for other in self.addresses(name):
            if other in but:
                continue
            try:
                self._ip.addr("del", index=index, address=str(other.ip), prefixlen=other.network.prefixlen)
            except NetlinkError as error:
                if error.code != errno.EADDRNOTAVAIL:  # else it went along with the one it was secondary to
                    raise refused(error, f"cannot take the address {other} from {name}") from None
            changed.append(f"{name} lost {other}")
        return changed

    # --- routes --------------------------------------------------------------------------------------------------
    def routes(self) -> list[Route]:
        """All IPv4 routes but the kernel's own local ones, of every table."""
        names = dict(socket.if_nameindex())
        with explained("cannot list the routes"):
            found = self._ip.get_routes(family=2)
            return [_route(m, names) for m in found if _table(m) != LOCAL_TABLE]

    def ensure_route(self, wanted: Route, known: list[Route] | None = None) -> bool:
        """The main table has the route exactly so; `known` spares a look when many are asked for."""
        if wanted in (self.routes() if known is None else known):
            return False
        options: dict[str, Any] = {"type": wanted.kind, "proto": wanted.protocol}
        if wanted.device:
            options |= {"oif": self.require(wanted.device).index, "scope": "link"}
        if wanted.source:
            options["prefsrc"] = wanted.source
        if wanted.metric:
            options["priority"] = wanted.metric
        if wanted.mtu:
            options["metrics"] = {"mtu": wanted.mtu}
        with explained(f"cannot set the route {wanted}"):
            self._ip.route("replace", dst=str(wanted.prefix), **options)
        return True

    def delete_route(self, route: Route) -> bool:
        options: dict[str, Any] = {"type": route.kind, "table": route.table, "scope": RT_SCOPE_NOWHERE}
        if route.device:
            options["oif"] = self.require(route.device).index
        if route.metric:
            options["priority"] = route.metric
        try:
            self._ip.route("del", dst=str(route.prefix), **options)
        except NetlinkError as error:
            if error.code in {errno.ESRCH, errno.ENOENT}:
                return False
            raise refused(error, f"cannot remove the route {route}") from None
        return True

    def path(self, address: str, source: str = "") -> tuple[str, int] | None:
        """Device and MTU that packets to `address` leave with now (a route's own MTU counts), None if unreachable.

        `source` is what they come from, where that is known: rules may send them another way than others.
        """
        found = self._way(address, source)
        if found is None or not found.get("RTA_OIF"):
            return None
        try:
            link = self.link(socket.if_indextoname(found.get("RTA_OIF")))
        except OSError:
            link = None
        if link is None:  # gone by now
            return None
        own = _metric(found)
        return link.name, min(link.mtu, own) if own else link.mtu

    def source(self, address: str) -> str:
        """The address of this host that packets to `address` leave with, if nobody says which; empty if unreachable."""
        found = self._way(address)
        return str(found.get("RTA_PREFSRC") or "") if found else ""

    def device_of(self, address: str) -> str:
        """The device that has this address of either family; empty if none has."""
        wanted = ipaddress.ip_address(address)
        return next((each.device for each in self.own_addresses() if each.ip == wanted), "")

    def own_addresses(self) -> list[Address]:
        """All of this host, of both families, IPv4 first."""
        with explained("cannot list the addresses"):
            found = [m for family in (2, 10) for m in self._ip.get_addr(family=family)]
        names = dict(socket.if_nameindex())
        return [_address(m, names[m["index"]]) for m in found if m["index"] in names]

    def _way(self, address: str, source: str = "") -> Any:
        """The route that packets to `address` take, None if there is none."""
        family = 10 if ":" in address else 2
        try:
            return self._ip.route("get", dst=address, family=family, **({"src": source} if source else {}))[0]
        except NetlinkError as error:
            if error.code in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}:
                return None
            raise refused(error, f"cannot look up the route to {address}") from None

    def uplinks(self) -> list[str]:
        """Devices of default routes, IPv4 then IPv6."""
        names = dict(socket.if_nameindex())
        with explained("cannot list the default routes"):
            found = [m for family in (2, 10) for m in self._ip.get_default_routes(family=family)]
        indices = dict.fromkeys(index for m in found for index in _outputs(m))
        return [names[index] for index in indices if index in names]

    def default_mtu(self, version: int) -> int:
        """MTU of the default route of IPv4 or IPv6, 0 if there is none."""
        with explained("cannot list the default routes"):
            routes = list(self._ip.get_default_routes(family=2 if version == 4 else 10))
            links = {link.index: link for link in self.links()}
        found = [min(links[i].mtu, _metric(m) or links[i].mtu) for m in routes for i in _outputs(m) if i in links]
        return min(found, default=0)


# --- messages --------------------------------------------------------------------------------------------------------
def _route(message: Any, names: dict[int, str]) -> Route:
    kinds = {number: name for name, number in ROUTE_TYPES.items()}
    outputs = _outputs(message)
    return Route(
        prefix=ipaddress.IPv4Network((message.get("RTA_DST") or 0, message["dst_len"])),
        device=names.get(outputs[0], "") if len(outputs) == 1 else "",
        kind=kinds.get(message["type"], str(message["type"])),
        source=message.get("RTA_PREFSRC") or "",
        metric=message.get("RTA_PRIORITY") or 0,
        mtu=_metric(message),
        protocol=message["proto"],
        table=_table(message),
    )


def _address(message: Any, device: str) -> Address:
    flags = message.get("IFA_FLAGS") or message["flags"]
    ip = ipaddress.ip_address(message.get("IFA_LOCAL") or message.get("IFA_ADDRESS"))
    # IPv4 has the flag of IPv6's temporary addresses for secondary ones, which last.
    fleeting = IFA_F_DEPRECATED | (IFA_F_TEMPORARY if ip.version == 6 else 0)
    return Address(device, message["index"], ip, settled=not flags & IFA_UNSETTLED, lasting=not flags & fleeting)


def _table(message: Any) -> int:
    return message.get("RTA_TABLE") or int(message["table"])


def _metric(message: Any) -> int:
    metrics = message.get("RTA_METRICS")
    return int(metrics.get("RTAX_MTU") or 0) if metrics else 0


def _outputs(message: Any) -> list[int]:
    if message.get("RTA_OIF"):
        return [message.get("RTA_OIF")]
    return [hop["oif"] for hop in message.get("RTA_MULTIPATH") or () if hop["oif"]]
