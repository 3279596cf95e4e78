"""What lies under the tunnel: whether its packets fit, whether the range is ours alone, whether the port is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from tunrouter.core import wire
from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.errors import ConfigError
from tunrouter.host import underlay_mtu
from tunrouter.host.preflight import check_place


def mtu(patient: Patient) -> Iterator[Finding]:
    known = patient.known
    underlay = underlay_mtu(known.peers)
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


def port(patient: Patient) -> Iterator[Finding]:
    number, running = patient.known.port, patient.known.running
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", number))  # noqa: S104  (nothing is received: it is closed at once)
            free = True
        except OSError:
            free = False
    if running and free:
        yield Finding("port", "fail", f"an agent runs, but UDP {number} is not open", "restart the agent")
    elif not running and not free:
        yield Finding("port", "fail", f"UDP {number} is in use by another program", f"ss -ulpn sport = :{number}")
    else:
        yield Finding("port", "ok", f"UDP {number} is {'free' if free else 'open'}")
