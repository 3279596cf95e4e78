"""This machine's part of the network: bridge, routes, rules and the pods' devices."""

from __future__ import annotations

from tunrouter.host.plan import HostPlan
from tunrouter.host.pods import EVERYTHING, Attached, Unwanted, Wanted
from tunrouter.host.reset import reset
from tunrouter.host.setup import Facts, Host
from tunrouter.host.underlay import free_range, overlapping, peers_inside, underlay_mtu

__all__ = [
    "EVERYTHING",
    "Attached",
    "Facts",
    "Host",
    "HostPlan",
    "Unwanted",
    "Wanted",
    "free_range",
    "overlapping",
    "peers_inside",
    "reset",
    "underlay_mtu",
]
