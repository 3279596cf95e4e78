"""What a runtime is answered: results as each version of the specification writes them, and errors.

Law: the interfaces of a result are the bridge, the pod's end on the host, and the pod's own, and the address is the
last one's. Before 1.0.0 an address says its `version`; since 1.1.0 an interface says its `mtu`. What plugins before
this one have said comes first and is left as it is.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

import msgspec

from tunrouter.cni.errors import CniError
from tunrouter.cni.request import VERSIONS, Request

NEWEST: Final = VERSIONS[-1]


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """What was attached."""

    bridge: str
    bridge_mac: str
    port: str
    port_mac: str
    mac: str
    address: IPv4Address
    gateway: IPv4Address
    mtu: int


def added(request: Request, pod: Pod) -> dict[str, Any]:
    """What ADD prints."""
    previous = request.previous or {}
    before = list(previous.get("interfaces") or ())
    interfaces = [
        {"name": pod.bridge, "mac": pod.bridge_mac},
        {"name": pod.port, "mac": pod.port_mac},
        {"name": request.interface, "mac": pod.mac, "sandbox": request.netns},
    ]
    if _at_least(request.version, "1.1.0"):
        for interface in interfaces:
            interface["mtu"] = pod.mtu  # type: ignore[assignment]
    address: dict[str, Any] = {
        "address": f"{pod.address}/32",
        "gateway": str(pod.gateway),
        "interface": len(before) + len(interfaces) - 1,
    }
    if not _at_least(request.version, "1.0.0"):
        address = {"version": "4", **address}
    return {
        "cniVersion": request.version,
        "interfaces": before + interfaces,
        "ips": [*(previous.get("ips") or ()), address],
        "routes": [*(previous.get("routes") or ()), *(_route(route, pod.gateway) for route in request.routes)],
        "dns": request.dns or previous.get("dns") or {},
    }


def _route(route: IPv4Network, gateway: IPv4Address) -> dict[str, str]:
    return {"dst": str(route), "gw": str(gateway)}


def failed(error: CniError, version: str) -> dict[str, Any]:
    """What any verb prints when it fails."""
    said = {"cniVersion": version if version in VERSIONS else NEWEST, "code": error.code, "msg": error.message}
    return {**said, "details": error.details} if error.details else said


def _at_least(version: str, other: str) -> bool:
    return VERSIONS.index(version) >= VERSIONS.index(other)
