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
from tunrouter.doctor.kernel import kernel
from tunrouter.doctor.leftovers import leftovers
from tunrouter.doctor.managers import managers
from tunrouter.doctor.patient import Check, Known, Patient
from tunrouter.doctor.port import port
from tunrouter.doctor.runtimes import runtimes
from tunrouter.doctor.switches import forwarding, nf_call, rp_filter
from tunrouter.doctor.underlay import address_range, mtu, uplink
from tunrouter.edge.netlink import Netlink
from tunrouter.errors import TunrouterError

CHECKS: Final[dict[str, Check]] = {
    "tools": tools,
    "kernel": kernel,
    "clock": clock,
    "range": address_range,
    "leftovers": leftovers,
    "port": port,
    "uplink": uplink,
    "devices": devices,
    "managers": managers,
    "mtu": mtu,
    "forwarding": forwarding,
    "rp_filter": rp_filter,
    "nf-call": nf_call,
    "firewall": firewall,
    "runtimes": runtimes,
    "tun-offloads": tun_offloads,
}
"""What must be there first, then the place that we need, then what we made of it, then who may hinder its traffic."""


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
    except OSError as error:
        what = f"cannot be checked: {error.filename or 'the kernel'}: {error.strerror}"
        return [Finding(name, "warn", what, "run as root, in the host's own namespaces")]
