"""Whether this kernel can do what the network needs: it is asked, and tries our rules without keeping them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge import kernel as edge
from tunrouter.edge.netlink import nft
from tunrouter.errors import HostError
from tunrouter.host.plan import HostPlan
from tunrouter.host.preflight import TUN_DEVICE
from tunrouter.host.ruleset import ruleset

OLDEST: Final = (4, 18)
"""With isolated ports of bridges, and trains of UDP datagrams (UDP_SEGMENT)."""
GOOD: Final = (5, 0)
"""With batches of received datagrams (UDP_GRO)."""
NEWER: Final = "boot a newer kernel, 5.10 or later"


def kernel(patient: Patient) -> Iterator[Finding]:
    name, version = edge.release()
    found = [*_of_version(name, version), *_of_tun(), *_of_rules(patient)]
    yield from found
    if not found:
        yield Finding("kernel", "ok", f"{name} has all that is needed")


def _of_version(name: str, version: tuple[int, int]) -> Iterator[Finding]:
    if version < OLDEST:
        yield Finding("kernel", "fail", f"{name} is too old: bridge ports cannot be kept apart before 4.18", NEWER)
    elif version < GOOD:
        yield Finding("kernel", "warn", f"{name} receives each datagram by itself (5.0 brought UDP_GRO)", NEWER)


def _of_tun() -> Iterator[Finding]:
    try:
        lacking = edge.lacking_of_tun(TUN_DEVICE)
    except OSError as error:
        fix = "modprobe tun; in a container, give it that device"
        yield Finding("kernel", "fail", f"{TUN_DEVICE} cannot be used: {os.strerror(error.errno or 0)}", fix)
        return
    if lacking:
        yield Finding("kernel", "fail", f"the TUN driver has no {' and no '.join(lacking)}", NEWER)


def _of_rules(patient: Patient) -> Iterator[Finding]:
    known = patient.known
    plan = HostPlan(range=known.range, mtu=0, port=known.port, bridge=known.bridge, tun=known.tun)
    try:
        said = nft.refusal(ruleset(plan, known.range[1], ()))
    except HostError:
        return  # the tool is missing, which is another check's
    if said:
        fix = f"modprobe nf_tables nft_fib_inet nft_nat nft_masq nf_conntrack; else {NEWER}"
        yield Finding("kernel", "fail", f"nf_tables refuses our rules: {said}", fix)
