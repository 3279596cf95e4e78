"""What the network is made of on this host: the tools, the two devices, their offloads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge import ethtool
from tunrouter.host.preflight import TUN_DEVICE


def tools(_: Patient) -> Iterator[Finding]:
    if shutil.which("nft") is None:
        yield Finding("tools", "fail", "nft is not installed", "apt-get install nftables")
    elif not TUN_DEVICE.exists():
        yield Finding("tools", "fail", f"{TUN_DEVICE} is missing", "modprobe tun, or give the container that device")
    else:
        yield Finding("tools", "ok", "nft and /dev/net/tun are there")


def devices(patient: Patient) -> Iterator[Finding]:
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


def tun_offloads(patient: Patient) -> Iterator[Finding]:
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
