"""What the network is made of on this host: the tools, the two devices, their offloads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge import ethtool
from tunrouter.host import strangers, switches


def tools(_: Patient) -> Iterator[Finding]:
    if shutil.which("nft") is None:
        yield Finding("tools", "fail", "nft is not installed", "apt-get install nftables")
    else:
        yield Finding("tools", "ok", "nft is there")


def devices(patient: Patient) -> Iterator[Finding]:
    missing = [name for name in (patient.known.bridge, patient.known.tun) if name not in patient.devices]
    down = [name for name in patient.ours if not patient.devices[name].up]
    if missing and patient.known.running:
        yield Finding("devices", "fail", f"{' and '.join(missing)} missing while an agent runs", "restart the agent")
    elif missing:
        yield Finding("devices", "warn", f"no {' and no '.join(missing)}", "start the agent: tunrouter up")
    elif down:
        yield Finding(
            "devices", "fail", f"{' and '.join(down)} down", "; ".join(f"ip link set {name} up" for name in down)
        )
    else:
        yield Finding("devices", "ok", f"{' and '.join(patient.ours)} up")
    yield from _foreign_ports(patient)


def _foreign_ports(patient: Patient) -> Iterator[Finding]:
    """Weave Net's are another check's, and if the whole bridge is not ours that is one more's."""
    bridge = patient.devices.get(patient.known.bridge)
    if bridge is None or not bridge.alias.startswith(switches.MARK):
        return
    ports = strangers.foreign_ports(link for link in patient.devices.values() if link.master == bridge.index)
    for name in (port for port in ports if strangers.maker_of(port) != strangers.WEAVE_NET):
        command = f"ip link del {name}" if strangers.maker_of(name) else f"ip link set {name} nomaster"
        what = f"{name} is a port of {bridge.name}, but not ours{strangers.probably(strangers.maker_of(name))}"
        yield Finding("devices", "warn", what, f"if nothing uses it, {command}")


def tun_offloads(patient: Patient) -> Iterator[Finding]:
    tun = patient.known.tun
    if tun not in patient.devices:
        yield Finding("tun-offloads", "warn", f"no {tun} to look at", "start the agent: tunrouter up")
        return
    off = [name for name, on in ethtool.offloads(tun).items() if not on]
    if off:
        what = f"{tun} has {', '.join(off)} off: every segment costs a system call"
        yield Finding("tun-offloads", "fail", what, f"ethtool -K {tun} tx on sg on tso on; else restart the agent")
    else:
        yield Finding("tun-offloads", "ok", f"{tun} segments and computes checksums late")
