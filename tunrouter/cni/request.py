"""What a runtime asks: the environment and the network configuration of one invocation, read and judged.

Law: CNI specification 1.1. Keys that are not ours are somebody else's and are left alone; a key of ours with a value
that cannot be had is an error that names it, never a network that is a little different from what was asked for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tunrouter.cni.errors import (
    INCOMPATIBLE_VERSION,
    INVALID_ENVIRONMENT,
    INVALID_NETWORK,
    UNDECODABLE,
    UNSUPPORTED_FIELD,
    CniError,
)

VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
SINCE: Final = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""Verbs that older versions do not have."""
MAX_ID: Final = 64
"""Bytes of a container's id, and of a network's name: the kernel's alias of a port holds both."""
EVERYTHING: Final = ipaddress.IPv4Network("0.0.0.0/0")
VALID_ATTACHMENTS: Final = "cni.dev/valid-attachments"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", re.ASCII)
_NEEDS: Final = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
}


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """What this node can do, against which wishes are judged."""

    range: ipaddress.IPv4Network
    mtu: int
    bridge: str
    gateway: ipaddress.IPv4Address | None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    command: str
    version: str
    network: str
    container: str = ""
    netns: str = ""
    interface: str = ""
    address: ipaddress.IPv4Address | None = None
    """This one and no other."""
    mtu: int = 0
    """0: as large as the path allows."""
    routes: tuple[ipaddress.IPv4Network, ...] = (EVERYTHING,)
    """What a pod reaches by way of the gateway."""
    dns: dict[str, Any] | None = None
    previous: dict[str, Any] | None = None
    """The result of the plugins before this one, as they said it."""
    valid: frozenset[tuple[str, str]] = frozenset()
    """Of GC: containers and interfaces that live."""

    @property
    def name(self) -> str:
        return pod_name(self.network, self.container)


def pod_name(network: str, container: str) -> str:
    """What a container is called here: its network's name tells who may collect it when it is gone."""
    return f"{network}/{container}"


def read(environment: Mapping[str, str], config: bytes, local: Local) -> Request:
    """Raises CniError."""
    command = environment.get("CNI_COMMAND", "")
    if command not in _NEEDS:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND {command!r} is none", "give one of ADD DEL CHECK GC STATUS")
    keys = decode(config)
    version = version_of(keys, command)
    network = _text(keys, "name")
    if not _is_id(network):
        raise CniError(INVALID_NETWORK, f"name {network!r} is none", f"use at most {MAX_ID} letters, digits, . _ and -")
    request = Request(command=command, version=version, network=network)
    if _NEEDS[command]:
        request = _with_container(request, environment, _NEEDS[command])
    if command == "GC":
        return msgspec.structs.replace(request, valid=_attachments(keys))
    if command in {"ADD", "CHECK"}:
        previous = _previous(keys)
        if command == "CHECK" and previous is None:
            raise CniError(INVALID_NETWORK, "CHECK needs prevResult", "give the result of ADD")
        request = msgspec.structs.replace(request, previous=previous)
    return _with_wishes(request, keys, environment, local) if command == "ADD" else request


def decode(config: bytes) -> dict[str, Any]:
    try:
        keys = msgspec.json.decode(config)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CniError(UNDECODABLE, f"the network configuration is no JSON: {error}") from None
    if not isinstance(keys, dict):
        raise CniError(UNDECODABLE, "the network configuration is no JSON object")
    return keys


def version_of(keys: Mapping[str, Any], command: str) -> str:
    version = keys.get("cniVersion", "0.1.0")  # which is what none means
    if version not in VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION, f"cniVersion {version!r} is not supported", f"use one of {', '.join(VERSIONS)}"
        )
    since = SINCE.get(command, VERSIONS[0])
    if VERSIONS.index(version) < VERSIONS.index(since):
        raise CniError(INCOMPATIBLE_VERSION, f"cniVersion {version} has no {command}", f"use {since} or later")
    return str(version)


# --- the environment -------------------------------------------------------------------------------------------------
def _with_container(request: Request, environment: Mapping[str, str], needed: tuple[str, ...]) -> Request:
    for variable in needed:
        if not environment.get(variable):
            raise CniError(INVALID_ENVIRONMENT, f"{variable} is missing", f"{request.command} needs it")
    container, interface = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    if not _is_id(container):
        fix = f"use at most {MAX_ID} letters, digits, . _ and -, the first a letter or digit"
        raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID {container[:80]!r} is no container's id", fix)
    plain = len(interface.encode()) <= 15 and interface not in {".", ".."} and interface.isprintable()
    if not plain or not interface.isascii() or any(letter in "/: \"'" for letter in interface):
        fix = "use at most 15 letters, digits, - and _"
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME {interface[:40]!r} is no interface's name", fix)
    netns = environment.get("CNI_NETNS", "")
    if "\0" in netns or len(netns) > 4096:
        raise CniError(INVALID_ENVIRONMENT, "CNI_NETNS is no path")
    return msgspec.structs.replace(request, container=container, interface=interface, netns=netns)


def _is_id(text: str) -> bool:
    return len(text) <= MAX_ID and _ID.fullmatch(text) is not None


# --- what is wished for ----------------------------------------------------------------------------------------------
def _with_wishes(request: Request, keys: Mapping[str, Any], environment: Mapping[str, str], local: Local) -> Request:
    for key in ("isGateway", "ipMasq"):
        if keys.get(key):
            raise _unsupported(key, keys[key], "leave it out: every node is a gateway and masquerades")
    if keys.get("hairpinMode") is False:
        raise _unsupported("hairpinMode", False, "leave it out: a pod always reaches its own Service")
    if keys.get("bridge", local.bridge) != local.bridge:
        raise _unsupported("bridge", keys["bridge"], f"leave it out: this node's is {local.bridge}")
    ipam = _object(keys, "ipam")
    _judge_ipam(ipam, local)
    return msgspec.structs.replace(
        request,
        address=_wanted(keys, environment),
        mtu=_mtu(keys, local),
        routes=_routes(ipam, local),
        dns=_object(keys, "dns") or None,
    )


def _judge_ipam(ipam: Mapping[str, Any], local: Local) -> None:
    if ipam.get("type"):
        raise _unsupported("ipam.type", ipam["type"], "leave it out: addresses come from the agent")
    subnet = ipam.get("subnet")
    if subnet is not None and not local.range.subnet_of(_prefix("ipam.subnet", subnet)):
        fix = f"leave it out: the agents' --range, {local.range}, decides"
        raise CniError(INVALID_NETWORK, f"ipam.subnet {subnet!r} does not hold the range", fix)
    gateway = ipam.get("gateway")
    if gateway is not None and local.gateway is not None and gateway != str(local.gateway):
        fix = "leave it out: each node has its own"
        raise CniError(INVALID_NETWORK, f"ipam.gateway {gateway!r} is not this node's, {local.gateway}", fix)


def _mtu(keys: Mapping[str, Any], local: Local) -> int:
    mtu = keys.get("mtu", 0)
    if not isinstance(mtu, int) or isinstance(mtu, bool) or not (mtu == 0 or 68 <= mtu <= local.mtu):
        fix = f"leave it out, or give 68 to {local.mtu}"
        raise CniError(INVALID_NETWORK, f"mtu {mtu!r} cannot be a pod's here", fix)
    return mtu


def _routes(ipam: Mapping[str, Any], local: Local) -> tuple[ipaddress.IPv4Network, ...]:
    """None given is a default route; an empty list is only the network itself."""
    given = ipam.get("routes")
    if given is None:
        return (EVERYTHING,)
    if not isinstance(given, list):
        raise CniError(INVALID_NETWORK, "ipam.routes is no list")
    routes = {_route(each, local) for each in given}
    return tuple(sorted(routes if EVERYTHING in routes else routes | {local.range}))


def _route(given: Any, local: Local) -> ipaddress.IPv4Network:
    if not isinstance(given, dict):
        raise CniError(INVALID_NETWORK, f"ipam.routes: {given!r} is no route", 'give {"dst": "10.0.0.0/8"}')
    if given.get("gw") not in (None, str(local.gateway)):
        raise _unsupported("ipam.routes.gw", given["gw"], "leave it out: pods have one gateway, the bridge")
    return _prefix("ipam.routes.dst", given.get("dst"))


def _wanted(keys: Mapping[str, Any], environment: Mapping[str, str]) -> ipaddress.IPv4Address | None:
    """As a capability, as the conventions' `args`, or as CNI_ARGS, whichever comes first."""
    capability = _object(keys, "runtimeConfig").get("ips")
    convention = _object(_object(keys, "args"), "cni").get("ips")
    variable = _arguments(environment.get("CNI_ARGS", "")).get("IP")
    for where, given in (("runtimeConfig.ips", capability), ("args.cni.ips", convention), ("CNI_ARGS IP", variable)):
        if given in (None, "", []):
            continue
        addresses = given if isinstance(given, list) else [given]
        if len(addresses) != 1:
            raise CniError(INVALID_NETWORK, f"{where}: a pod has one address here", "give one")
        try:
            return ipaddress.IPv4Interface(addresses[0]).ip
        except (ValueError, TypeError):
            raise CniError(INVALID_NETWORK, f"{where}: {addresses[0]!r} is no IPv4 address") from None
    return None


def _arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: `KEY=value;KEY=value`. Keys that are not ours are ignored, whether IgnoreUnknown is set or not."""
    pairs = (part.partition("=") for part in text.split(";") if part)
    return {key: value for key, _, value in pairs}


def _attachments(keys: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    given = keys.get(VALID_ATTACHMENTS)
    if not isinstance(given, list):  # without the list everything would be collected
        raise CniError(INVALID_NETWORK, f"GC needs {VALID_ATTACHMENTS}", "give the attachments that live")
    return frozenset((_text(each, "containerID"), _text(each, "ifname")) for each in given)


def _previous(keys: Mapping[str, Any]) -> dict[str, Any] | None:
    previous = keys.get("prevResult")
    if previous is None:
        return None
    if not isinstance(previous, dict):
        raise CniError(INVALID_NETWORK, "prevResult is no object")
    for key in ("interfaces", "ips", "routes"):
        listed = previous.get(key) or []
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise CniError(INVALID_NETWORK, f"prevResult.{key} is no list of objects")
    return previous


# --- values ----------------------------------------------------------------------------------------------------------
def _text(keys: Any, key: str) -> str:
    value = keys.get(key, "") if isinstance(keys, dict) else None
    if not isinstance(value, str):
        raise CniError(INVALID_NETWORK, f"{key} is no text")
    return value


def _object(keys: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = keys.get(key) or {}
    if not isinstance(value, dict):
        raise CniError(INVALID_NETWORK, f"{key} is no object")
    return value


def _prefix(key: str, text: Any) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text) if isinstance(text, str) else _no_prefix(key, text)
    except ValueError:
        return _no_prefix(key, text)


def _no_prefix(key: str, text: Any) -> ipaddress.IPv4Network:
    raise CniError(INVALID_NETWORK, f"{key} {text!r} is no IPv4 network", "for example: 10.32.0.0/12")


def _unsupported(key: str, value: Any, fix: str) -> CniError:
    return CniError(UNSUPPORTED_FIELD, f"{key}: {value!r} is not supported", fix)
