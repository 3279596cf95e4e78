"""Whose rules would drop our traffic, and whether our own are there."""

from __future__ import annotations

from collections.abc import Iterator

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge.firewall import Firewall
from tunrouter.edge.netlink import nft
from tunrouter.host.ruleset import TABLES


def firewall(patient: Patient) -> Iterator[Finding]:
    known = patient.known
    lost = [f"{family} {name}" for family, name in TABLES if not nft.present(family, name)]
    if lost and patient.ours:
        yield Finding("firewall", "fail", f"nftables table {' and '.join(lost)} missing", "restart the agent")
    found = Firewall(bridge=known.bridge, tun=known.tun, network=known.range, port=known.port)
    drops = found.inspect(patient.netlink.uplinks())
    for drop in drops:
        yield Finding("firewall", "fail", str(drop), drop.fix)
    for text in found.unread:
        yield Finding("firewall", "warn", text, "install that tool, so that its rules can be seen")
    if not drops and not found.unread:
        yield Finding("firewall", "ok", f"no firewall drops pods' traffic or UDP {known.port}")
