"""This machine's part of the network: bridge, routes, rules and the pods' devices."""

from __future__ import annotations

from tunrouter.host.plan import HostPlan
from tunrouter.host.pods import EVERYTHING, Attached, Unwanted, Wanted
from tunrouter.host.reset import drop_policies, reset
from tunrouter.host.setup import Facts, Host
from tunrouter.host.underlay import underlay_mtu

__all__ = [
    "EVERYTHING",
    "Attached",
    "Facts",
    "Host",
    "HostPlan",
    "Unwanted",
    "Wanted",
    "drop_policies",
    "reset",
    "underlay_mtu",
]
