"""What a filter would do to one kind of packet, decided from its rules alone.

Law: three-valued. A rule matches for certain, certainly not, or perhaps (it looks at something a flow does not fix, as
a set or a mark). What happens only perhaps is neither relied upon when it accepts nor feared when it drops: an
administrator who drops one bad address has not shut the tunnel out, and one who accepts one has not let it in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final

import msgspec

MAX_DEPTH: Final = 16
"""Jumps into jumps that are followed; the kernel itself allows 16."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The first packet of a kind of traffic; an empty or None field may have any value."""

    hook: str
    """`forward` or `input`."""
    input: str = ""
    output: str = ""
    protocol: str = ""
    port: int = 0
    state: str = "new"
    """Of connection tracking: `new`, or `untracked` for what we exempt from it."""
    source: Network | None = None
    destination: Network | None = None
    version: int = 4


class Condition(msgspec.Struct, frozen=True):
    """One condition. `field` is a Flow's, or anything else for a condition that cannot be decided here."""

    field: str
    values: tuple[str, ...] = ()
    negated: bool = False

    def holds(self, flow: Flow) -> bool | None:
        found = _decide(self, flow)
        return found if found is None or not self.negated else not found


class Rule(msgspec.Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()
    verdict: str = ""
    """`accept`, `drop`, `return`, `jump`, `goto`, or empty for a rule that only counts, logs or marks."""
    target: str = ""
    text: str = ""

    def matches(self, flow: Flow) -> bool | None:
        answers = [condition.holds(flow) for condition in self.conditions]
        if False in answers:
            return False
        return None if None in answers else True


class Chain(msgspec.Struct):
    rules: list[Rule] = []
    policy: str = ""
    """`accept` or `drop` for a base chain."""
    hook: str = ""


def verdict(chains: Mapping[str, Chain], base: str, flow: Flow) -> tuple[str, str]:
    """`accept` or `drop` for `flow` entering at chain `base`, and the rule or policy that says so."""
    decided, why = _walk(chains, base, flow, 0, {})
    if decided in {"accept", "drop"}:
        return decided, why
    policy = chains[base].policy or "accept"
    return policy, f"policy {policy}"


def _walk(
    chains: Mapping[str, Chain], name: str, flow: Flow, depth: int, walked: dict[str, tuple[str, str]]
) -> tuple[str, str]:
    """Each chain once: it says the same to the same flow again. One that leads back to itself decides nothing more."""
    if name not in walked and name in chains and depth <= MAX_DEPTH:
        walked[name] = "", ""
        walked[name] = _say(chains, name, flow, depth, walked)
    return walked.get(name, ("", ""))


def _say(
    chains: Mapping[str, Chain], name: str, flow: Flow, depth: int, walked: dict[str, tuple[str, str]]
) -> tuple[str, str]:
    for rule in chains[name].rules:
        if not rule.verdict or rule.matches(flow) is not True:
            continue
        if rule.verdict in {"accept", "drop"}:
            return rule.verdict, rule.text
        if rule.verdict == "return":
            return "", ""
        decided, why = _walk(chains, rule.target, flow, depth + 1, walked)
        if decided or rule.verdict == "goto":
            return decided, why
    return "", ""


def _decide(condition: Condition, flow: Flow) -> bool | None:
    if condition.field in {"input", "output"}:
        return _device(condition.values, getattr(flow, condition.field))
    if condition.field == "port":
        return _port(condition.values, flow.port)
    if condition.field in {"source", "destination"}:
        return _address(condition.values, getattr(flow, condition.field))
    if condition.field == "state":
        return flow.state in condition.values
    if condition.field == "protocol":
        return None if not flow.protocol else flow.protocol in condition.values
    if condition.field == "version":
        return str(flow.version) in condition.values
    if condition.field == "destination type":
        return _destined(condition.values, flow.hook)
    return None


def _device(patterns: tuple[str, ...], name: str) -> bool | None:
    if any(p == name or (p.endswith("*") and name.startswith(p[:-1])) for p in patterns if name or p == "*"):
        return True
    return False if name else None


def _destined(types: tuple[str, ...], hook: str) -> bool | None:
    """What comes in is for this very host; of what passes through that is all that is known."""
    if hook == "input":
        return "LOCAL" in types
    return None if set(types) - {"LOCAL"} else False


def _port(ranges: tuple[str, ...], port: int) -> bool | None:
    if not port:
        return None
    for item in ranges:
        low, _, high = item.partition("-")
        if not low.isdigit():
            return None
        if int(low) <= port <= int(high if high.isdigit() else low):
            return True
    return False


def _address(networks: tuple[str, ...], ours: Network | None) -> bool | None:
    """Certain only where our whole network lies in one of theirs, or touches none."""
    if ours is None:
        return None
    touched = False
    for item in networks:
        try:
            theirs = ipaddress.ip_network(item, strict=False)
        except ValueError:
            return None
        if theirs.version == ours.version and theirs.overlaps(ours):
            if theirs.prefixlen <= ours.prefixlen:
                return True
            touched = True
    return None if touched else False
