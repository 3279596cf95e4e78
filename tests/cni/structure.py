"""The specification's tables of results: which keys each version requires and allows, and what their values are."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final

KNOWN: Final = {1, 2, 3, 4, 5, 6, 7, 11}
"""Codes below 100 that mean something. Those from 4 to 7 are written down since 1.0.0; the reference implementation
gives them in every version."""
SINCE_1_1: Final = {50, 51}

Check = Callable[[Any], bool]


def success_faults(said: Any, version: str) -> list[str]:
    """What is wrong with the answer to ADD."""
    keys: dict[str, tuple[bool, Check]] = {
        "cniVersion": (True, lambda value: value == version),
        "interfaces": (True, _is_list),
        "ips": (True, _is_list),
        "routes": (False, _is_list),
        "dns": (version < "0.4.0", _is_object),
    }
    if faults := _faults("result", said, keys):
        return faults
    interfaces = said["interfaces"]
    for interface in interfaces:
        faults += _faults("interface", interface, _interface(version))
    for address in said["ips"]:
        faults += _faults("ip", address, _address(version, len(interfaces)))
    for route in said.get("routes", ()):
        faults += _faults("route", route, _route(version))
    return faults + _faults("dns", said.get("dns", {}), _DNS)


def error_faults(said: Any, version: str) -> list[str]:
    """What is wrong with the answer of any verb that failed."""
    known = KNOWN | SINCE_1_1 if version >= "1.1.0" else KNOWN
    keys: dict[str, tuple[bool, Check]] = {
        "cniVersion": (True, lambda value: value == version),
        "code": (True, lambda value: _is_count(value) and (value >= 100 or value in known)),
        "msg": (True, lambda value: _is_text(value) and value != ""),
        "details": (False, _is_text),
    }
    return _faults("error", said, keys)


def version_faults(said: Any, version: str) -> list[str]:
    """What is wrong with the answer to VERSION."""
    keys: dict[str, tuple[bool, Check]] = {
        "cniVersion": (True, lambda value: value == version),
        "supportedVersions": (True, lambda value: _is_texts(value) and value != []),
    }
    return _faults("version", said, keys)


def _interface(version: str) -> dict[str, tuple[bool, Check]]:
    keys: dict[str, tuple[bool, Check]] = {
        "name": (True, _is_text),
        "mac": (False, _is_mac),
        "sandbox": (False, _is_text),
    }
    later: dict[str, tuple[bool, Check]] = {
        "mtu": (False, _is_count),
        "socketPath": (False, _is_text),
        "pciID": (False, _is_text),
    }
    return keys | later if version >= "1.1.0" else keys


def _address(version: str, interfaces: int) -> dict[str, tuple[bool, Check]]:
    keys: dict[str, tuple[bool, Check]] = {
        "address": (True, _is_cidr),
        "gateway": (False, _is_address),
        "interface": (True, lambda value: _is_count(value) and value < interfaces),
    }
    before: dict[str, tuple[bool, Check]] = {"version": (True, lambda value: value in {"4", "6"})}
    return before | keys if version < "1.0.0" else keys


def _route(version: str) -> dict[str, tuple[bool, Check]]:
    keys: dict[str, tuple[bool, Check]] = {"dst": (True, _is_cidr), "gw": (False, _is_address)}
    count: tuple[bool, Check] = (False, _is_count)
    later = dict.fromkeys(("mtu", "advmss", "priority", "table", "scope"), count)
    return keys | later if version >= "1.1.0" else keys


def _faults(what: str, said: Any, keys: Mapping[str, tuple[bool, Check]]) -> list[str]:
    if not isinstance(said, dict):
        return [f"{what} {said!r} is no object"]
    missing = [f"{what} has no {key}" for key, (required, _) in keys.items() if required and key not in said]
    unknown = [f"{what} has {key}" for key in said if key not in keys]
    wrong = [f"{what}.{key} is {said[key]!r}" for key, (_, fits) in keys.items() if key in said and not fits(said[key])]
    return missing + unknown + wrong


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_mac(value: Any) -> bool:
    parts = value.split(":") if isinstance(value, str) else []
    return len(parts) == 6 and all(len(part) == 2 and int(part, 16) >= 0 for part in parts)


def _is_address(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def _is_cidr(value: Any) -> bool:
    try:
        return isinstance(value, str) and "/" in value and bool(ipaddress.ip_interface(value))
    except ValueError:
        return False


_DNS: Final[dict[str, tuple[bool, Check]]] = {
    "nameservers": (False, lambda value: _is_texts(value) and all(map(_is_address, value))),
    "domain": (False, _is_text),
    "search": (False, _is_texts),
    "options": (False, _is_texts),
}
