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
MAX_ROUTES: Final = 128
EVERYTHING: Final = ipaddress.IPv4Network("0.0.0.0/0")
VALID_ATTACHMENTS: Final = "cni.dev/valid-attachments"
ATTACHMENTS: Final = "cni.dev/attachments"
"""The key's name in the text of 1.1.0."""
SHOWN: Final = 60
"""Characters of a value that an error repeats."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", re.ASCII)
_POD: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{0,252}", re.ASCII)
"""The name of a pod or a namespace of Kubernetes (RFC 1123)."""
_UID: Final = re.compile(r"[A-Za-z0-9.\-]{1,64}", re.ASCII)
_DEVICE: Final = re.compile(r"[A-Za-z0-9_.@\-]{1,15}", re.ASCII)
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
    pod: str = ""
    """The pod of Kubernetes whose sandbox the container is, if the runtime said so, with its network's name."""
    uid: str = ""
    """That pod's, if it was said; of one that the kubelet has from a file it is not the API's."""
    valid: frozenset[tuple[str, str]] = frozenset()
    """Of GC: containers and interfaces that live."""

    @property
    def name(self) -> str:
        return pod_name(self.network, self.container)


def pod_name(network: str, container: str) -> str:
    """What a container is called here: its network's name tells who may collect it when it is gone."""
    return f"{network}/{container}"


def network_of(name: str) -> str:
    """Of a container that is called so; empty if no runtime attached it."""
    network, _, container = name.partition("/")
    return network if is_id(network) and _ID.fullmatch(container) else ""


def read(environment: Mapping[str, str], config: bytes, local: Local) -> Request:
    """Raises CniError."""
    command = environment.get("CNI_COMMAND", "")
    if command not in _NEEDS:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND {_short(command)} is none", f"give one of {' '.join(_NEEDS)}")
    keys = decode(config)
    version = version_of(keys, command)
    network = _text(keys, "name")
    if not (is_id(network) if command == "ADD" else _ID.fullmatch(network)):
        fix = f"use at most {MAX_ID} letters, digits, . _ and -"
        raise CniError(INVALID_NETWORK, f"name {_short(network)} is none", fix)
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
    if not isinstance(version, str):
        raise CniError(UNDECODABLE, f"cniVersion {_short(version)} is no text")
    if version not in VERSIONS:
        fix = f"use one of {', '.join(VERSIONS)}"
        raise CniError(INCOMPATIBLE_VERSION, f"cniVersion {_short(version)} is not supported", fix)
    since = SINCE.get(command, VERSIONS[0])
    if VERSIONS.index(version) < VERSIONS.index(since):
        raise CniError(INCOMPATIBLE_VERSION, f"cniVersion {version} has no {command}", f"use {since} or later")
    return version


# --- the environment -------------------------------------------------------------------------------------------------
def _with_container(request: Request, environment: Mapping[str, str], needed: tuple[str, ...]) -> Request:
    if missing := [variable for variable in needed if not environment.get(variable)]:
        raise CniError(INVALID_ENVIRONMENT, f"{', '.join(missing)} missing", f"{request.command} needs that")
    container, interface = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    # What ADD has refused must still be deletable, so our own limits are ADD's alone.
    ours = request.command == "ADD"
    if not (is_id(container) if ours else _ID.fullmatch(container)):
        fix = f"use at most {MAX_ID} letters, digits, . _ and -, the first a letter or digit"
        raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID {_short(container)} is no container's id", fix)
    if not _is_device(interface, ours=ours):
        fix = "use at most 15 letters, digits, - and _"
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME {_short(interface)} is no interface's name", fix)
    netns = environment.get("CNI_NETNS", "")
    if "\0" in netns or len(netns) > 4096:
        raise CniError(INVALID_ENVIRONMENT, "CNI_NETNS is no path")
    return msgspec.structs.replace(request, container=container, interface=interface, netns=netns)


def _is_device(text: str, *, ours: bool) -> bool:
    """As the kernel's dev_valid_name(); `ours` are without the characters that rule sets give a meaning to."""
    if ours:
        return _DEVICE.fullmatch(text) is not None and text not in {".", ".."}
    length = len(text.encode(errors="replace"))
    return length < 16 and text.isprintable() and text not in {".", ".."} and not set(text) & set("/: \0")


def is_id(text: str) -> bool:
    """Whether it may be the name of a network of ours, or a container's id."""
    return len(text) <= MAX_ID and _ID.fullmatch(text) is not None


# --- what is wished for ----------------------------------------------------------------------------------------------
def _with_wishes(request: Request, keys: Mapping[str, Any], environment: Mapping[str, str], local: Local) -> Request:
    for key in ("isGateway", "ipMasq"):
        if keys.get(key):
            raise _unsupported(key, keys[key], "leave it out: every node is a gateway and masquerades")
    if keys.get("hairpinMode") not in (None, True):
        raise _unsupported("hairpinMode", keys["hairpinMode"], "leave it out: a pod always reaches its own Service")
    if keys.get("bridge") not in (None, local.bridge):
        raise _unsupported("bridge", keys["bridge"], f"leave it out: this node's is {local.bridge}")
    ipam = _object(keys, "ipam")
    _judge_ipam(ipam, local)
    return msgspec.structs.replace(
        request,
        address=_wanted(keys, environment),
        pod=_pod(request.network, environment),
        uid=_uid(environment),
        mtu=_mtu(keys, local),
        routes=_routes(ipam, local),
        dns=_dns(_object(keys, "dns")),
    )


def _judge_ipam(ipam: Mapping[str, Any], local: Local) -> None:
    if ipam.get("type"):
        raise _unsupported("ipam.type", ipam["type"], "leave it out: addresses come from the agent")
    subnet = ipam.get("subnet")
    if subnet is not None and not local.range.subnet_of(_prefix("ipam.subnet", subnet)):
        fix = f"leave it out: the agents' --range, {local.range}, decides"
        raise CniError(INVALID_NETWORK, f"ipam.subnet {_short(subnet)} does not hold the range", fix)
    gateway = ipam.get("gateway")
    if gateway is not None and local.gateway is not None and gateway != str(local.gateway):
        fix = "leave it out: each node has its own"
        raise CniError(INVALID_NETWORK, f"ipam.gateway {_short(gateway)} is not this node's, {local.gateway}", fix)


def _mtu(keys: Mapping[str, Any], local: Local) -> int:
    mtu = keys.get("mtu")
    if mtu is None:
        return 0
    if not isinstance(mtu, int) or isinstance(mtu, bool) or not (mtu == 0 or 68 <= mtu <= local.mtu):
        fix = f"leave it out, or give 68 to {local.mtu}"
        raise CniError(INVALID_NETWORK, f"mtu {_short(mtu)} cannot be a pod's here", fix)
    return mtu


def _dns(dns: dict[str, Any]) -> dict[str, Any] | None:
    """Checked here, because a runtime that cannot read the result would take the pod's address for lost."""
    for key in ("nameservers", "search", "options"):
        listed = dns.get(key) or []
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise CniError(INVALID_NETWORK, f"dns.{key} is no list of texts")
    for server in dns.get("nameservers") or ():
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise CniError(INVALID_NETWORK, f"dns.nameservers: {_short(server)} is no address") from None
    _text(dns, "domain", "dns.")
    return dns or None


def _routes(ipam: Mapping[str, Any], local: Local) -> tuple[ipaddress.IPv4Network, ...]:
    """None given is a default route; an empty list is only the network itself."""
    given = ipam.get("routes")
    if given is None:
        return (EVERYTHING,)
    if not isinstance(given, list):
        raise CniError(INVALID_NETWORK, "ipam.routes is no list")
    if len(given) > MAX_ROUTES:
        raise CniError(INVALID_NETWORK, f"ipam.routes has {len(given)} routes", f"give at most {MAX_ROUTES}")
    routes = {_route(each, local) for each in given}
    return tuple(sorted(routes if EVERYTHING in routes else routes | {local.range}))


def _route(given: Any, local: Local) -> ipaddress.IPv4Network:
    if not isinstance(given, dict):
        raise CniError(INVALID_NETWORK, f"ipam.routes: {_short(given)} is no route", 'give {"dst": "10.0.0.0/8"}')
    for key in given.keys() & {"mtu", "advmss", "priority", "table", "scope"}:
        raise _unsupported(f"ipam.routes.{key}", given[key], "leave it out")
    gateway = given.get("gw")
    if gateway is not None and (local.gateway is None or gateway != str(local.gateway)):
        raise _unsupported("ipam.routes.gw", gateway, "leave it out: pods have one gateway, the bridge")
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
            return ipaddress.IPv4Interface(addresses[0] if isinstance(addresses[0], str) else "").ip
        except ValueError:
            raise CniError(INVALID_NETWORK, f"{where}: {_short(addresses[0])} is no IPv4 address") from None
    return None


def _pod(network: str, environment: Mapping[str, str]) -> str:
    """By the names that kubelet's runtimes give: a pod that is started again has them, and another container id."""
    given = _arguments(environment.get("CNI_ARGS", ""))
    names = given.get("K8S_POD_NAMESPACE", ""), given.get("K8S_POD_NAME", "")
    return "/".join((network, *names)) if all(map(_POD.fullmatch, names)) else ""


def _uid(environment: Mapping[str, str]) -> str:
    given = _arguments(environment.get("CNI_ARGS", "")).get("K8S_POD_UID", "")
    return given if _UID.fullmatch(given) else ""


def _arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: `KEY=value;KEY=value`. Keys that are not ours are ignored, whether IgnoreUnknown is set or not."""
    pairs = (part.partition("=") for part in text.split(";") if part)
    return {key: value for key, _, value in pairs}


def _attachments(keys: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Without the list everything would be collected, and for an entry that is not understood the pod it means."""
    key = next((key for key in (VALID_ATTACHMENTS, ATTACHMENTS) if key in keys), None)
    if key is None:
        raise CniError(INVALID_NETWORK, f"GC needs {VALID_ATTACHMENTS}", "give the attachments that live")
    given = [] if keys[key] is None else keys[key]  # which is how a list without any comes
    if not isinstance(given, list):
        raise CniError(INVALID_NETWORK, f"{key} is no list")
    found = frozenset((_text(each, "containerID"), _text(each, "ifname")) for each in given)
    if any(not container or not interface for container, interface in found):
        raise CniError(INVALID_NETWORK, f"{key}: an attachment has a containerID and an ifname")
    return found


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
    _object(previous, "dns", "prevResult.")
    return previous


# --- values ----------------------------------------------------------------------------------------------------------
def _text(keys: Any, key: str, within: str = "") -> str:
    value = keys.get(key) if isinstance(keys, dict) else 0
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CniError(INVALID_NETWORK, f"{within}{key} is no text")
    return value


def _object(keys: Mapping[str, Any], key: str, within: str = "") -> dict[str, Any]:
    value = keys.get(key) or {}
    if not isinstance(value, dict):
        raise CniError(INVALID_NETWORK, f"{within}{key} is no object")
    return value


def _prefix(key: str, text: Any) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text) if isinstance(text, str) else _no_prefix(key, text)
    except ValueError:
        return _no_prefix(key, text)


def _no_prefix(key: str, text: Any) -> ipaddress.IPv4Network:
    raise CniError(INVALID_NETWORK, f"{key} {_short(text)} is no IPv4 network", "for example: 10.32.0.0/12")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _unsupported(key: str, value: Any, fix: str) -> CniError:
    return CniError(UNSUPPORTED_FIELD, f"{key}: {_short(value)} is not supported", fix)
