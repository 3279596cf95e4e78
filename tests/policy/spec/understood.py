"""What of a policy can be understood: as the server's own validation, and for what passed an older or a newer one.

Law: a rule is understood as a whole or not at all.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
CIDR: Final = re.compile(r"([0-9]+(\.[0-9]+){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)/[0-9]{1,3}", re.ASCII)
PORT_NAME: Final = re.compile(r"(?=.{1,15}\Z)(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)


def network(text: Any) -> IPv4Network | IPv6Network | None:
    """None: it is no CIDR. One whose address is not the network's first is one."""
    if not isinstance(text, str) or not CIDR.fullmatch(text):
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def selector_is_understood(selector: Any) -> bool:
    if not isinstance(selector, dict):
        return False
    pairs, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not isinstance(pairs, dict) or not isinstance(expressions, list):
        return False
    if not all(isinstance(value, str) for value in pairs.values()):
        return False
    return all(_expression_is_understood(expression) for expression in expressions)


def _expression_is_understood(expression: Any) -> bool:
    if not isinstance(expression, dict) or not isinstance(expression.get("key"), str) or not expression["key"]:
        return False
    values = expression.get("values") or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return False
    match expression.get("operator"):
        case "In" | "NotIn":
            return values != []
        case "Exists" | "DoesNotExist":
            return values == []
        case _:
            return False


def rule_is_understood(rule: Any, peers_field: str) -> bool:
    if not isinstance(rule, dict):
        return False
    peers, ports = rule.get(peers_field) or [], rule.get("ports") or []
    if not isinstance(peers, list) or not isinstance(ports, list):
        return False
    return all(_peer_is_understood(peer) for peer in peers) and all(_port_is_understood(port) for port in ports)


def _peer_is_understood(peer: Any) -> bool:
    if not isinstance(peer, dict):
        return False
    block = peer.get("ipBlock")
    selectors = [peer[field] for field in ("podSelector", "namespaceSelector") if peer.get(field) is not None]
    if block is not None:
        return selectors == [] and _block_is_understood(block)
    return selectors != [] and all(selector_is_understood(selector) for selector in selectors)


def _block_is_understood(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    excepted = block.get("except") or []
    if not isinstance(excepted, list):
        return False
    return all(network(text) is not None for text in (block.get("cidr"), *excepted))


def _port_is_understood(port: Any) -> bool:
    if not isinstance(port, dict):
        return False
    number, last = port.get("port"), port.get("endPort")
    if port.get("protocol") is not None and port["protocol"] not in PROTOCOLS:
        return False
    if isinstance(number, str):
        return last is None and PORT_NAME.fullmatch(number) is not None
    if number is None:
        return last is None
    return _is_a_port(number) and (last is None or (_is_a_port(last) and last >= number))


def _is_a_port(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 65535
