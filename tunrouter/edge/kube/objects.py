"""The objects of the Kubernetes API with the fields that we read or write, and where they live.

Law: as the API means it, unknown fields are ignored, and an absent or null one has its default. What is encoded leaves
out defaults. Only objects that are ours alone (Lease, Event) may be replaced whole: others would lose other fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec


class Object(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """What every one of these is, in JSON with names in camel case."""


class OwnerReference(Object, frozen=True, kw_only=True):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Identity(Object, frozen=True, kw_only=True):
    """The metadata of what there are many of."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    labels: dict[str, str] = {}


class Metadata(Identity, frozen=True, kw_only=True):
    generate_name: str = ""
    generation: int = 0
    deletion_timestamp: datetime | None = None
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()


class Address(Object, frozen=True, kw_only=True):
    type: str = ""
    """InternalIP, ExternalIP, Hostname, …"""
    address: str = ""


class Condition(Object, frozen=True, kw_only=True):
    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_heartbeat_time: datetime | None = None
    last_transition_time: datetime | None = None


class NodeSpec(Object, frozen=True, kw_only=True):
    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")
    unschedulable: bool = False


class NodeInfo(Object, frozen=True, kw_only=True):
    boot_id: str = msgspec.field(default="", name="bootID")


class NodeStatus(Object, frozen=True, kw_only=True):
    node_info: NodeInfo = msgspec.field(default_factory=NodeInfo)
    addresses: tuple[Address, ...] = ()
    conditions: tuple[Condition, ...] = ()


class Node(Object, frozen=True, kw_only=True):
    metadata: Metadata
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class LeaseSpec(Object, frozen=True, kw_only=True):
    holder_identity: str = ""
    acquire_time: str = ""
    """A MicroTime; make one with `micro_time`."""
    lease_transitions: int = 0


class Lease(Object, frozen=True, kw_only=True):
    metadata: Metadata
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


class Namespace(Object, frozen=True, kw_only=True):
    metadata: Identity


class PodIP(Object, frozen=True, kw_only=True):
    ip: str = ""


class ContainerPort(Object, frozen=True, kw_only=True):
    name: str = ""
    container_port: int = 0
    protocol: str = "TCP"


class PodContainer(Object, frozen=True, kw_only=True):
    ports: tuple[ContainerPort, ...] = ()
    restart_policy: str = ""
    """Of an init container `Always`: it is a sidecar, which lives as long as the pod."""


class PodSpec(Object, frozen=True, kw_only=True):
    node_name: str = ""
    host_network: bool = False
    containers: tuple[PodContainer, ...] = ()
    init_containers: tuple[PodContainer, ...] = ()


class PodStatus(Object, frozen=True, kw_only=True):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")


class PodAnnotations(Object, frozen=True, kw_only=True):
    mirror: str = msgspec.field(default="", name="kubernetes.io/config.mirror")
    """Of a static pod, which the API has a mirror of: the UID that its kubelet and runtime know."""


class PodMetadata(Identity, frozen=True, kw_only=True):
    annotations: PodAnnotations = msgspec.field(default_factory=PodAnnotations)


class Pod(Object, frozen=True, kw_only=True):
    metadata: PodMetadata
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class NetworkPolicy(Object, frozen=True, kw_only=True):
    metadata: Identity
    spec: Any = None
    """As it came: each of its rules is understood, or not, by itself (policies.py)."""


class ConfigMap(Object, frozen=True, kw_only=True):
    metadata: Metadata
    data: dict[str, str] = {}


class ObjectReference(Object, frozen=True, kw_only=True):
    kind: str
    name: str
    uid: str = ""
    """By it `kubectl describe` finds an Event; of a Node it looks for its name here (newer ones for both)."""
    namespace: str = ""
    api_version: str = "v1"
    field_path: str = ""


class EventSource(Object, frozen=True, kw_only=True):
    component: str
    host: str = ""


class Event(Object, frozen=True, kw_only=True):
    """Of core/v1, not events.k8s.io/v1: both are one store, but of the latter's an older `kubectl describe` tells
    neither who reported nor how often; here a repetition is a patch of `count` and `lastTimestamp`.

    About what has no namespace it stands in `default`: the server refuses it elsewhere.
    """

    metadata: Metadata
    involved_object: ObjectReference
    reason: str
    """One word in camel case."""
    message: str
    type: str = ""
    """Normal or Warning; the server has no default, nor for the count."""
    source: EventSource
    first_timestamp: datetime
    last_timestamp: datetime
    count: int = 0
    reporting_component: str = ""
    reporting_instance: str = ""


class StatusCause(Object, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(Object, frozen=True, kw_only=True):
    name: str = ""
    kind: str = ""
    retry_after_seconds: int = 0
    causes: tuple[StatusCause, ...] = ()


class Status(Object, frozen=True, kw_only=True):
    """The server's answer when it is not the object."""

    status: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: StatusDetails | None = None


class HasMetadata(Protocol):
    @property
    def metadata(self) -> Identity: ...


T = TypeVar("T", bound=HasMetadata)
S = TypeVar("S")


class Resource(Generic[T]):
    """One kind of objects: its struct, and its path in the API."""

    def __init__(self, kind: type[T], version: str, plural: str, *, namespaced: bool = True) -> None:
        self.kind = kind
        self.version = version
        """`v1`, or `group/version`."""
        self.plural = plural
        self.namespaced = namespaced

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Without a namespace of all; without a name of the collection. ValueError for what would be another path."""
        parts = ["api" if "/" not in self.version else "apis", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        parts += [_segment(part) for part in (name, subresource) if part]
        return "/" + "/".join(parts)

    def decode(self, raw: bytes | msgspec.Raw) -> T:
        """Raises msgspec.MsgspecError or ValueError."""
        return decoded(raw, self.kind)

    def encode(self, body: T | Mapping[str, Any]) -> bytes:
        """With the kind and version that the server wants to read."""
        fields = msgspec.to_builtins(body)
        return msgspec.json.encode({"apiVersion": self.version, "kind": self.kind.__name__, **fields})


def decoded(raw: bytes | msgspec.Raw, kind: type[S]) -> S:
    """Raises msgspec.MsgspecError or ValueError. A null stands for an absent field, as in Go."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nulls(msgspec.json.decode(raw)), kind)


def _segment(text: str) -> str:
    """Names of objects need no escaping, but for RBAC's colon, which a path may hold."""
    if not text.replace("-", "").replace(".", "").replace(":", "").replace("_", "").isalnum() or not text.isascii():
        raise ValueError(f"{text!r} is no name of an object")
    return text


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]  # a null is an item, which nobody understands
    return value


def micro_time(at: datetime) -> str:
    """A MicroTime: always six digits, without which the server refuses the object."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


NODES: Final = Resource(Node, "v1", "nodes", namespaced=False)
NAMESPACES: Final = Resource(Namespace, "v1", "namespaces", namespaced=False)
PODS: Final = Resource(Pod, "v1", "pods")
CONFIGMAPS: Final = Resource(ConfigMap, "v1", "configmaps")
EVENTS: Final = Resource(Event, "v1", "events")
NETWORK_POLICIES: Final = Resource(NetworkPolicy, "networking.k8s.io/v1", "networkpolicies")
LEASES: Final = Resource(Lease, "coordination.k8s.io/v1", "leases")
