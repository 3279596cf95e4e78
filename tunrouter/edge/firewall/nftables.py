"""Other programs' native nftables chains, read from `nft -j`. They are only looked at, never changed.

Law: a chain that iptables-nft keeps (upper-case FORWARD or INPUT in a table of iptables' names) is left to iptables.py;
our own tables are left out.
"""

from __future__ import annotations

import json
from typing import Any, Final

from tunrouter.edge.firewall.command import run
from tunrouter.edge.firewall.rules import Chain, Condition, Rule

OWN: Final = "tunrouter"
HOOKS: Final = frozenset({"forward", "input"})
IPTABLES_TABLES: Final = frozenset({"filter", "mangle", "nat", "raw", "security"})
FAMILIES: Final = frozenset({"inet", "ip", "ip6"})
META: Final = {"iifname": "input", "iif": "input", "oifname": "output", "oif": "output", "l4proto": "protocol"}
PAYLOAD: Final = {"saddr": "source", "daddr": "destination", "dport": "port", "protocol": "protocol"}
TRANSPORTS: Final = frozenset({"tcp", "udp", "udplite", "sctp", "dccp"})
VERDICTS: Final = {"accept": "accept", "drop": "drop", "reject": "drop", "return": "return"}
CONDITIONS: Final = frozenset({"match", "vmap", "limit", "fib", "lookup", "xt", "ct count"})
"""Statements that let only some packets go on to the rest of the rule."""


class Overview:
    """Which tables have base chains that see forwarded or incoming packets."""

    def __init__(self) -> None:
        chains = [item["chain"] for item in _listed(["list", "chains"]) if "chain" in item]
        based = [c for c in chains if c.get("hook") in HOOKS and c["family"] in FAMILIES]
        self.iptables = {c["family"] for c in based if _is_iptables(c) and c["table"] == "filter"}
        """Families (`ip`, `ip6`) whose filter table iptables-nft keeps."""
        foreign = [c for c in based if not _is_iptables(c) and not c["table"].startswith(OWN)]
        self.foreign = sorted({(c["family"], c["table"]) for c in foreign})


def read(family: str, table: str) -> dict[str, Chain]:
    """The chains of one table."""
    chains: dict[str, Chain] = {}
    for item in _listed(["list", "table", family, table]):
        if "chain" in item:
            found = item["chain"]
            chains[found["name"]] = Chain([], found.get("policy", ""), found.get("hook", ""))
        elif "rule" in item:
            chains[item["rule"]["chain"]].rules.extend(parse(item["rule"].get("expr", [])))
    return chains


def parse(expressions: list[dict[str, Any]]) -> list[Rule]:
    """One rule as `nft -j` prints it; a verdict map on the state of a connection becomes one rule an entry."""
    conditions: list[Condition] = []
    for expression in expressions:
        kind, value = next(iter(expression.items()))
        if kind == "match":
            conditions.extend(_conditions(value))
        elif kind in {"jump", "goto"}:
            return [Rule(tuple(conditions), kind, value["target"], _text(expressions))]
        elif kind in VERDICTS:
            return [Rule(tuple(conditions), VERDICTS[kind], "", _text(expressions))]
        elif kind == "vmap":
            return _verdict_map(tuple(conditions), value)
        elif kind in CONDITIONS:
            conditions.append(Condition(kind))
    return []


def _verdict_map(conditions: tuple[Condition, ...], value: dict[str, Any]) -> list[Rule]:
    data = value.get("data")
    entries = data.get("set", []) if isinstance(data, dict) else []
    return [
        rule
        for key, result in entries
        for rule in _behind(conditions, parse([{"match": {"op": "in", "left": value["key"], "right": key}}, result]))
    ]


def _behind(conditions: tuple[Condition, ...], rules: list[Rule]) -> list[Rule]:
    return [Rule(conditions + rule.conditions, rule.verdict, rule.target, rule.text) for rule in rules]


def _conditions(match: dict[str, Any]) -> list[Condition]:
    """`tcp dport 22` looks at the protocol too."""
    left = match["left"]
    payload = left.get("payload") if isinstance(left, dict) else None
    named = payload.get("protocol") if isinstance(payload, dict) else None
    implied = [Condition("protocol", (named,))] if named in TRANSPORTS else []
    return [*implied, _condition(match)]


def _condition(match: dict[str, Any]) -> Condition:
    left, operator = match["left"], match["op"]
    field = _field(left)
    values = _values(match["right"])
    if field == "state" and operator not in {"==", "in", "!="}:
        field = ""
    if not field or values is None or operator not in {"==", "in", "!="}:
        return Condition("other")
    return Condition(field, values, operator == "!=")


def _field(left: Any) -> str:
    if not isinstance(left, dict):
        return ""
    kind, value = next(iter(left.items()))
    if not isinstance(value, dict):
        return ""
    if kind == "meta":
        return "version" if value.get("key") == "nfproto" else META.get(value.get("key", ""), "")
    if kind == "ct" and value.get("key") == "state":
        return "state"
    if kind == "payload":
        return PAYLOAD.get(value.get("field", ""), "")
    return ""


def _values(right: Any) -> tuple[str, ...] | None:
    """The values a field is compared with, None for a named set and whatever else cannot be looked into."""
    items = right.get("set") if isinstance(right, dict) and "set" in right else right
    found = [_value(item) for item in (items if isinstance(items, list) else [items])]
    return None if None in found else tuple(item for item in found if item is not None)


def _value(item: Any) -> str | None:
    if isinstance(item, dict):
        if "prefix" in item:
            return f"{item['prefix']['addr']}/{item['prefix']['len']}"
        if "range" in item:
            return "-".join(str(end) for end in item["range"])
        return None
    text = str(item)
    return None if text.startswith("@") else {"ipv4": "4", "ipv6": "6"}.get(text, text)


def _text(expressions: list[dict[str, Any]]) -> str:
    return json.dumps(expressions[-1])


def _is_iptables(chain: dict[str, Any]) -> bool:
    return chain["family"] != "inet" and chain["table"] in IPTABLES_TABLES and chain["name"].isupper()


def _listed(arguments: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(["nft", "-j", *arguments]))["nftables"]
    return found
