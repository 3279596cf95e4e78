"""NetworkPolicies, pods and namespaces as values: what `networking.k8s.io/v1` says, with every default written out.

Law: the API's letter. What is absent there is None here where that means "all", and an empty tuple means "none": a rule
whose peers could not be understood must not become one for everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Protocol = Literal["TCP", "UDP", "SCTP"]
Direction = Literal["ingress", "egress"]
Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]
DIRECTIONS: Final[tuple[Direction, Direction]] = ("egress", "ingress")
"""In the order in which a packet meets them."""
LAST_PORT: Final = 65535

Key = tuple[str, str]
"""Namespace and name."""


class Requirement(NamedTuple):
    """One line of a selector; of `matchLabels` it is In with one value."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """As apimachinery's labels.Requirement: NotIn holds for who has no such label."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None


class Selector(NamedTuple):
    """All must hold; without any it selects everything. The order in which they were written is no difference."""

    requirements: frozenset[Requirement] = frozenset()

    def selects(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.holds(labels) for requirement in self.requirements)


EVERYTHING: Final = Selector()


class Peers(NamedTuple):
    """The pods of a `podSelector`, a `namespaceSelector` or both."""

    pods: Selector
    namespaces: Selector | None = None
    """None: the policy's own namespace."""


class Block(NamedTuple):
    """An `ipBlock`: whoever has such an address, a pod or not."""

    network: Network
    without: tuple[Network, ...] = ()


class Ports(NamedTuple):
    """The ports of one protocol from `first` to `last`, or those that the destination's containers call `name`."""

    protocol: Protocol
    first: int = 0
    last: int = LAST_PORT
    name: str = ""


class Rule(NamedTuple):
    """Permits what one of the peers and one of the ports match; None matches everything, other protocols included."""

    peers: tuple[Peers | Block, ...] | None
    ports: tuple[Ports, ...] | None


class Policy(NamedTuple):
    namespace: str
    name: str
    selector: Selector
    """Which pods of its namespace it is for."""
    ingress: tuple[Rule, ...] | None = None
    """None: it does not isolate in this direction."""
    egress: tuple[Rule, ...] | None = None
    faults: tuple[str, ...] = ()
    """What of it was not understood, and permits nothing: one line each."""

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        return self.ingress if direction == "ingress" else self.egress


class NamedPort(NamedTuple):
    """A port of a container, sidecars included."""

    name: str
    protocol: Protocol
    number: int


class Pod(NamedTuple):
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    addresses: tuple[Address, ...] = ()
    """As the cluster knows them; empty until its node has told it."""
    ports: tuple[NamedPort, ...] = ()
    node: str = ""
    host_network: bool = False
    """It has its node's addresses: no peer, and no target."""
    ended: bool = False
    """Succeeded or Failed: its address may be another's by now."""
    born: float = 0.0
    """In seconds since 1970: of two that claim an address the younger has it."""

    @property
    def key(self) -> Key:
        return self.namespace, self.name


class Placed(NamedTuple):
    """A container of this node, as who attached it knows it: before the cluster does, and until it is gone."""

    address: Address
    pod: Key | None = None
    """None: not told, so whose it is has to be known by the address."""
    uid: str = ""
    """Empty where the runtime did not say."""
    policed: bool = True
    """False: no pod of Kubernetes, so no policy is about it."""
