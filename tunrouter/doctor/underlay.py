"""What lies under the tunnel: the way to the peers, whether packets fit there, whether the range is ours alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from tunrouter.core import wire
from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.errors import ConfigError, HostError
from tunrouter.host import strangers, underlay_mtu
from tunrouter.host.choice import EVERY, Chosen
from tunrouter.host.preflight import check_place


def uplink(patient: Patient) -> Iterator[Finding]:
    """The wrong card is one that peers are not behind: ours, a network of containers, or another than the one bound."""
    netlink = patient.netlink
    try:
        host, bound = patient.chosen.address, patient.chosen.device
    except HostError as error:
        yield Finding("uplink", "fail", error.what, error.fix)
        return
    if host and not bound:
        fix = f"start the agent with {_instead(patient)}"
        yield Finding("uplink", "fail", f"the agent's address {host} is on no device", fix)
    ways = {peer: netlink.path(peer, host if bound else "") for peer in patient.peers if patient.chosen.speaks_to(peer)}
    found = False
    for peer, way in ways.items():
        for finding in _of_way(patient, peer, way[0] if way else "", bound):
            found = True
            yield finding
    if not found and (bound or not host):
        through = sorted({way[0] for way in ways.values() if way})
        text = f"peers are reached through {' and '.join(through)}" if through else "no address of a peer to look at"
        yield Finding("uplink", "ok", text)


def _of_way(patient: Patient, peer: str, device: str, bound: str) -> Iterator[Finding]:
    if not device:
        yield Finding("uplink", "fail", f"there is no route to peer {peer}", f"ip route get {peer} says why")
    elif device in patient.ours:
        what = f"the way to peer {peer} leads into {device}, whose packets that way is to carry"
        yield Finding("uplink", "fail", what, _without(patient, peer, device))
    elif device not in {"lo", *patient.netlink.uplinks()} and (who := strangers.maker_of(device)):
        command = strangers.removal(patient.devices[device])
        fix = f"if nothing uses it, {command}; else give it another network, or peer {peer} a route of its own"
        yield Finding("uplink", "warn", f"the way to peer {peer} leads through {device}, {who}", fix)
    elif bound and device not in {"lo", bound}:
        what = f"the agent's address {patient.chosen.address} is {bound}'s, but peer {peer} is reached through {device}"
        fix = f"start the agent with --iface {device}, or with none"
        yield Finding("uplink", "warn", what, fix)


def _instead(patient: Patient) -> str:
    """The device that leads to the peers."""
    found = [way[0] for way in map(patient.netlink.path, patient.peers) if way and way[0] not in {"lo", *patient.ours}]
    return f"--iface {found[0]}" if found else "--iface and a device that `ip address` shows, or without"


def _without(patient: Patient, peer: str, device: str) -> str:
    """What takes the route away that leads to this peer."""
    routes = [r for r in patient.netlink.routes() if r.device == device and ipaddress.ip_address(peer) in r.prefix]
    if not routes:
        return f"ip route get {peer} says which route that is: remove it"
    closest = max(routes, key=lambda route: route.prefix.prefixlen)
    return f"ip route del {closest.prefix} dev {device}"


def mtu(patient: Patient) -> Iterator[Finding]:
    known = patient.known
    underlay = underlay_mtu(patient.peers, _chosen(patient))
    version = 6 if any(":" in peer for peer in known.peers) else 4
    limit = wire.inner_mtu(underlay, version)
    sizes = [(name, patient.devices[name].mtu) for name in patient.ours]
    sizes += [(port.name, port.mtu) for port in patient.ports]
    sizes += [(f"route {r}", r.mtu) for r in patient.netlink.routes() if r.device == known.tun and r.mtu]
    large = [f"{name} has {size}" for name, size in sizes if size > limit]
    if large:
        what = f"MTU too large for the underlay's {underlay}, which carries {limit}: {', '.join(large[:4])}"
        yield Finding("mtu", "fail", what, f"restart the agent without --mtu, or with --mtu {limit} or less")
    else:
        yield Finding("mtu", "ok", f"underlay {underlay}, room for packets of {limit}")


def _chosen(patient: Patient) -> Chosen:
    """All addresses where another check says that the one cannot be had."""
    try:
        return patient.chosen
    except HostError:
        return EVERY


def address_range(patient: Patient) -> Iterator[Finding]:
    known, routes = patient.known, patient.netlink.routes()
    try:
        check_place(patient.netlink, known.range, known.bridge, known.tun, known.peers)
    except ConfigError as error:
        yield Finding("range", "fail", error.what, error.fix)
        return
    if known.tun in patient.devices and not any(r.prefix == known.range and r.device == known.tun for r in routes):
        yield Finding("range", "fail", f"no route {known.range} dev {known.tun}", "restart the agent")
    else:
        yield Finding("range", "ok", f"{known.range} is free")
