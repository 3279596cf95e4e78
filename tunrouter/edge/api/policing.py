"""What the policy process is asked on a socket of its own: by the agent, which containers there are; by a user, why.

Law: as the agent's API: one JSON line asked, one answered, and what changes something needs uid 0.
"""

from __future__ import annotations

import msgspec


class Container(msgspec.Struct, frozen=True):
    """A container on this host's bridge."""

    address: str
    name: str
    """As `ps` tells it."""
    cni: bool = False
    """A runtime attached it for the network of Kubernetes; whose it is may be told below, or be known no more."""
    namespace: str = ""
    pod: str = ""
    uid: str = ""


class ContainersCall(msgspec.Struct, frozen=True, tag="containers"):
    """From the agent: all that are attached now. Who is not among them is gone."""

    containers: tuple[Container, ...]


class Heard(msgspec.Struct, frozen=True):
    """What the agent is answered when it told its containers."""

    why: str = ""
    """Why the kernel has not what policies ask for; empty if it has."""


class EnforceCall(msgspec.Struct, frozen=True, tag="enforce"):
    """From the agent: this one, too; answers when the policies of its pod are in force.

    Fails after `seconds` with what it waits for.
    """

    container: Container
    seconds: float = 5.0


class ExplainCall(msgspec.Struct, frozen=True, tag="explain"):
    """May `source` (`namespace/pod`, an address, or `node`) open this to `destination`?"""

    source: str
    destination: str
    port: int
    protocol: str = "TCP"


class Step(msgspec.Struct, frozen=True):
    """What one direction says."""

    direction: str
    """`egress` or `ingress`."""
    pod: str
    """Whose policies these are; empty where that end is no pod, so that it has none."""
    allowed: bool
    why: str
    """One sentence."""
    policies: tuple[str, ...] = ()
    """All that isolate the pod in this direction, as `namespace/name`."""
    policy: str = ""
    """The one that permits it."""
    rule: int | None = None
    """Which of its rules, from 0."""


class Explained(msgspec.Struct, frozen=True):
    allowed: bool
    source: str
    destination: str
    """Both as they were understood, with what they are."""
    steps: tuple[Step, ...]
    hints: tuple[str, ...] = ()
    """What else a reader should know: an outage, a policy that is not understood."""


class PoliciesCall(msgspec.Struct, frozen=True, tag="policies"):
    """All policies that it knows."""


class PolicyRow(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    directions: tuple[str, ...]
    pods: int
    """That it is for, in the cluster."""
    here: int
    """Of them on this node."""
    faults: tuple[str, ...] = ()


class PolicyTable(msgspec.Struct, frozen=True):
    policies: tuple[PolicyRow, ...]
    in_force: bool
    why: str = ""
    """Why the kernel has not what is told here, or why this may be old."""


ENFORCING = ContainersCall | EnforceCall
"""Only root may ask for these."""
PolicyCall = ENFORCING | ExplainCall | PoliciesCall
