"""Names what is wrong with this host, before and while an agent runs.

Law: it only looks. Each check says something, also when all is well; what it cannot find out is a warning, never a
silence. A `fail` means that traffic is lost or leaks now, a `warn` that it may be.
"""

from __future__ import annotations

import ipaddress
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from tunrouter.core import wire
from tunrouter.edge import clock, ethtool, sysctl
from tunrouter.edge.firewall import Firewall
from tunrouter.edge.netlink import Link, Netlink, nft
from tunrouter.errors import ConfigError, TunrouterError
from tunrouter.host import underlay_mtu
from tunrouter.host.preflight import TUN_DEVICE, check_place
from tunrouter.host.ruleset import PORT_PREFIX, TABLES
from tunrouter.host.setup import NF_CALL

Level = Literal["ok", "warn", "fail"]
EARLIEST_CLOCK: Final = 1_735_689_600
"""2025-01-01: no node of this product can have lived earlier."""
LATEST_CLOCK: Final = 4_102_444_800
"""2100-01-01."""


class Finding(msgspec.Struct, frozen=True):
    check: str
    level: Level
    text: str
    fix: str = ""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the doctor is told: a running agent's plan, or what an agent would be started with."""

    range: ipaddress.IPv4Network = ipaddress.IPv4Network("10.32.0.0/12")
    bridge: str = "weave"
    tun: str = "tunrouter0"
    port: int = 6783
    peers: tuple[str, ...] = ()
    """Underlay addresses, without ports."""
    running: bool = False
    """An agent answers, so what it sets up must be there."""


class _Patient:
    """One look at the host, shared by the checks."""

    def __init__(self, known: Known, netlink: Netlink, now: float) -> None:
        self.known = known
        self.netlink = netlink
        self.now = now
        self.devices = {link.name: link for link in netlink.links()}
        self.ours = [name for name in (known.bridge, known.tun) if name in self.devices]


def diagnose(known: Known, now: float | None = None) -> list[Finding]:
    """All checks, in the order of `CHECKS`; needs root and the host's own network namespace."""
    found: list[Finding] = []
    with Netlink() as netlink:
        patient = _Patient(known, netlink, time.time() if now is None else now)
        for name, check in CHECKS.items():
            found += _run(name, check, patient)
    return found


def _run(name: str, check: Callable[[_Patient], Iterator[Finding]], patient: _Patient) -> list[Finding]:
    try:
        return list(check(patient))
    except TunrouterError as error:
        return [Finding(name, "warn", f"cannot be checked: {error.what}", error.fix)]


def _tools(_: _Patient) -> Iterator[Finding]:
    if shutil.which("nft") is None:
        yield Finding("tools", "fail", "nft is not installed", "apt-get install nftables")
    elif not TUN_DEVICE.exists():
        yield Finding("tools", "fail", f"{TUN_DEVICE} is missing", "modprobe tun, or give the container that device")
    else:
        yield Finding("tools", "ok", "nft and /dev/net/tun are there")


def _devices(patient: _Patient) -> Iterator[Finding]:
    missing = [name for name in (patient.known.bridge, patient.known.tun) if name not in patient.devices]
    down = [name for name in patient.ours if not patient.devices[name].up]
    if missing and patient.known.running:
        yield Finding("devices", "fail", f"{' and '.join(missing)} missing while an agent runs", "restart the agent")
    elif missing:
        yield Finding("devices", "warn", f"no {' and no '.join(missing)}", "start the agent: tunrouter up")
    elif down:
        yield Finding("devices", "fail", f"{' and '.join(down)} down", f"ip link set {down[0]} up")
    else:
        yield Finding("devices", "ok", f"{' and '.join(patient.ours)} up")


def _firewall(patient: _Patient) -> Iterator[Finding]:
    known = patient.known
    lost = [f"{family} {name}" for family, name in TABLES if not nft.present(family, name)]
    if lost and patient.ours:
        yield Finding("firewall", "fail", f"nftables table {' and '.join(lost)} missing", "restart the agent")
    firewall = Firewall(bridge=known.bridge, tun=known.tun, network=known.range, port=known.port)
    drops = firewall.inspect(patient.netlink.uplinks())
    for drop in drops:
        yield Finding("firewall", "fail", str(drop), drop.fix)
    for text in firewall.unread:
        yield Finding("firewall", "warn", text, "install that tool, so that its rules can be seen")
    if not drops and not firewall.unread:
        yield Finding("firewall", "ok", f"no firewall drops pods' traffic or UDP {known.port}")


def _rp_filter(patient: _Patient) -> Iterator[Finding]:
    everywhere = int(sysctl.read("net/ipv4/conf/all/rp_filter") or 0)
    strict = []
    for device in patient.ours:
        own = int(sysctl.read(f"net/ipv4/conf/{device}/rp_filter") or 0)
        if max(everywhere, own) == 1:  # the kernel takes the larger of the two
            strict.append(device)
    for device in strict:
        what = f"strict reverse path filter on {device} drops replies through the tunnel"
        yield Finding("rp_filter", "fail", what, f"sysctl -w net.ipv4.conf.{device}.rp_filter=2")
    if not strict:
        yield Finding("rp_filter", "ok", "no strict reverse path filter in the way")


def _forwarding(patient: _Patient) -> Iterator[Finding]:
    switches = ["net/ipv4/ip_forward", *(f"net/ipv4/conf/{device}/forwarding" for device in patient.ours)]
    off = [name.replace("/", ".") for name in switches if sysctl.read(name) != "1"]
    if off and patient.ours:
        yield Finding("forwarding", "fail", f"{off[0]} is off, so pods reach nobody", f"sysctl -w {off[0]}=1")
    else:
        yield Finding("forwarding", "ok", "packets are forwarded" if not off else "off; the agent turns it on")


def _nf_call(patient: _Patient) -> Iterator[Finding]:
    value = sysctl.read(NF_CALL) or "0"
    isolated = value != "1"
    wrong = [p.name for p in _ports(patient) if p.isolated != isolated or p.hairpin == isolated]
    if wrong:
        what = f"bridge-nf-call-iptables is {value}, but {len(wrong)} port(s) are in the other mode ({wrong[0]})"
        yield Finding("nf-call", "fail", what, "the agent changes them within 2 s: restart it if it does not")
    else:
        yield Finding("nf-call", "ok", f"bridge-nf-call-iptables is {value} and the ports fit")


def _mtu(patient: _Patient) -> Iterator[Finding]:
    known = patient.known
    underlay = underlay_mtu(known.peers)
    version = 6 if any(":" in peer for peer in known.peers) else 4
    limit = wire.inner_mtu(underlay, version)
    sizes = [(name, patient.devices[name].mtu) for name in patient.ours]
    sizes += [(port.name, port.mtu) for port in _ports(patient)]
    sizes += [(f"route {r}", r.mtu) for r in patient.netlink.routes() if r.device == known.tun and r.mtu]
    large = [f"{name} has {size}" for name, size in sizes if size > limit]
    if large:
        what = f"MTU too large for the underlay's {underlay}, which carries {limit}: {', '.join(large[:4])}"
        yield Finding("mtu", "fail", what, f"restart the agent without --mtu, or with --mtu {limit} or less")
    else:
        yield Finding("mtu", "ok", f"underlay {underlay}, room for packets of {limit}")


def _range(patient: _Patient) -> Iterator[Finding]:
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


def _clock(patient: _Patient) -> Iterator[Finding]:
    fix = "set the clock: timedatectl set-ntp true"
    if not EARLIEST_CLOCK <= patient.now <= LATEST_CLOCK:
        year = time.gmtime(patient.now).tm_year
        yield Finding("clock", "fail", f"the clock says {year}: peers take this node for an older one", fix)
    elif not clock.synchronised():
        yield Finding("clock", "warn", "nobody keeps the clock right", fix)
    else:
        yield Finding("clock", "ok", "the clock is kept right")


def _tun_offloads(patient: _Patient) -> Iterator[Finding]:
    tun = patient.known.tun
    if tun not in patient.devices:
        yield Finding("tun-offloads", "warn", f"no {tun} to look at", "start the agent: tunrouter up")
        return
    off = [name for name, on in ethtool.offloads(tun).items() if not on]
    if off:
        what = f"{tun} has {', '.join(off)} off: every segment costs a system call"
        yield Finding("tun-offloads", "fail", what, f"ethtool -K {tun} tx on sg on tso on, or restart the agent")
    else:
        yield Finding("tun-offloads", "ok", f"{tun} segments and computes checksums late")


def _port(patient: _Patient) -> Iterator[Finding]:
    port, running = patient.known.port, patient.known.running
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104  (nothing is received: it is closed at once)
            free = True
        except OSError:
            free = False
    if running and free:
        yield Finding("port", "fail", f"an agent runs, but UDP {port} is not open", "restart the agent")
    elif not running and not free:
        yield Finding("port", "fail", f"UDP {port} is in use by another program", f"ss -ulpn sport = :{port}")
    else:
        yield Finding("port", "ok", f"UDP {port} is {'free' if free else 'open'}")


def _ports(patient: _Patient) -> list[Link]:
    return [link for link in patient.netlink.ports(patient.known.bridge) if link.name.startswith(PORT_PREFIX)]


CHECKS: Final[dict[str, Callable[[_Patient], Iterator[Finding]]]] = {
    "tools": _tools,
    "devices": _devices,
    "port": _port,
    "firewall": _firewall,
    "rp_filter": _rp_filter,
    "forwarding": _forwarding,
    "nf-call": _nf_call,
    "mtu": _mtu,
    "range": _range,
    "clock": _clock,
    "tun-offloads": _tun_offloads,
}
