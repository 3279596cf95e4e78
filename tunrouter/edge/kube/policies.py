"""The parts of a NetworkPolicy's spec, each understood by itself.

Law: a field that is not known here may restrict what it stands in, so whatever has one is not understood. What is
absent, or null, is told apart from what is empty where the API tells them apart.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

Protocol = Literal["TCP", "UDP", "SCTP"]


class Part(msgspec.Struct, rename="camel", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every one of these is."""


class SelectorRequirement(Part, frozen=True, kw_only=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] | None = None


class LabelSelector(Part, frozen=True, kw_only=True):
    match_labels: dict[str, str] | None = None
    match_expressions: tuple[SelectorRequirement, ...] | None = None


class IPBlock(Part, frozen=True, kw_only=True):
    cidr: str
    except_: tuple[str, ...] | None = msgspec.field(default=None, name="except")


class PolicyPeer(Part, frozen=True, kw_only=True):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class PolicyPort(Part, frozen=True, kw_only=True):
    protocol: Protocol | None = None
    port: int | str | None = None
    end_port: int | None = None


class IngressRule(Part, frozen=True, kw_only=True):
    from_: tuple[PolicyPeer, ...] | None = msgspec.field(default=None, name="from")
    ports: tuple[PolicyPort, ...] | None = None


class EgressRule(Part, frozen=True, kw_only=True):
    to: tuple[PolicyPeer, ...] | None = None
    ports: tuple[PolicyPort, ...] | None = None


P = TypeVar("P", bound=Part)


def part(given: Any, kind: type[P]) -> P:
    """Raises msgspec.ValidationError, which says where and what; ip_block is `ipBlock` there, as it was written."""
    return msgspec.convert(given, kind)
