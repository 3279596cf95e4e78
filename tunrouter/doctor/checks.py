"""All checks of this host, in the order in which a person would mend what they find.

Law: they only look. Each check says something, also when all is well; what it cannot find out is a warning, never a
silence.
"""

from __future__ import annotations

import time
from typing import Final

from tunrouter.doctor.clock import clock
from tunrouter.doctor.devices import devices, tools, tun_offloads
from tunrouter.doctor.finding import Finding
from tunrouter.doctor.firewall import firewall
from tunrouter.doctor.patient import Check, Known, Patient
from tunrouter.doctor.switches import forwarding, nf_call, rp_filter
from tunrouter.doctor.underlay import address_range, mtu, port
from tunrouter.edge.netlink import Netlink
from tunrouter.errors import TunrouterError

CHECKS: Final[dict[str, Check]] = {
    "tools": tools,
    "devices": devices,
    "port": port,
    "firewall": firewall,
    "rp_filter": rp_filter,
    "forwarding": forwarding,
    "nf-call": nf_call,
    "mtu": mtu,
    "range": address_range,
    "clock": clock,
    "tun-offloads": tun_offloads,
}


def diagnose(known: Known, now: float | None = None) -> list[Finding]:
    """All checks, in the order of `CHECKS`; needs root and the host's own network namespace."""
    found: list[Finding] = []
    with Netlink() as netlink:
        patient = Patient(known, netlink, time.time() if now is None else now)
        for name, check in CHECKS.items():
            found += _run(name, check, patient)
    return found


def _run(name: str, check: Check, patient: Patient) -> list[Finding]:
    try:
        return list(check(patient))
    except TunrouterError as error:
        return [Finding(name, "warn", f"cannot be checked: {error.what}", error.fix)]
