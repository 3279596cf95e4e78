"""The kernel's switches that decide whether packets are forwarded, and how bridged ones are."""

from __future__ import annotations

from collections.abc import Iterator

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge import sysctl
from tunrouter.host.setup import NF_CALL


def rp_filter(patient: Patient) -> Iterator[Finding]:
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


def forwarding(patient: Patient) -> Iterator[Finding]:
    switches = ["net/ipv4/ip_forward", *(f"net/ipv4/conf/{device}/forwarding" for device in patient.ours)]
    off = [name.replace("/", ".") for name in switches if sysctl.read(name) != "1"]
    if off and patient.ours:
        yield Finding("forwarding", "fail", f"{off[0]} is off, so pods reach nobody", f"sysctl -w {off[0]}=1")
    else:
        yield Finding("forwarding", "ok", "packets are forwarded" if not off else "off; the agent turns it on")


def nf_call(patient: Patient) -> Iterator[Finding]:
    value = sysctl.read(NF_CALL) or "0"
    isolated = value != "1"
    wrong = [port.name for port in patient.ports if port.isolated != isolated or port.hairpin == isolated]
    if wrong:
        what = f"bridge-nf-call-iptables is {value}, but {len(wrong)} port(s) are in the other mode ({wrong[0]})"
        mode = "isolated on hairpin off" if isolated else "isolated off hairpin on"
        commands = "; ".join(f"bridge link set dev {name} {mode}" for name in wrong)
        yield Finding("nf-call", "fail", what, f"restart the agent, which does it within 2 s: {commands}")
    else:
        yield Finding("nf-call", "ok", f"bridge-nf-call-iptables is {value} and the ports fit")
