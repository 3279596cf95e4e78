"""What the core asks of the world: values that the agent carries out, in order.

Law: the core never acts, it only says what is to be done; whoever runs it (the agent, a simulator, a test) decides how.
A step that fails leaves its effects to the next one; should every step fail, they are bounded all the same.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from tunrouter.core import bounds, seam, wire
from tunrouter.core.journal import Persist


class KernelMtu(NamedTuple):
    """The kernel's route for `prefix` gets this MTU, or with None goes away again, so that the kernel tells pods."""

    prefix: IPv4Network
    mtu: int | None


class Remember(NamedTuple):
    """Keep these endpoints on disk: after a restart they are tried at once."""

    endpoints: tuple[seam.Endpoint, ...]


class Log(NamedTuple):
    """Say `text` to the operator, once while `key` keeps repeating. Peer-given text in it is already printable."""

    level: str
    key: str
    """The event, a word of our own, and behind it what tells this one from others of its kind."""
    text: str
    peer: int = 0
    """The node that it is about, if it is about one."""
    address: str = ""
    """Where somebody is that it is about."""
    reason: str = ""


class Said(NamedTuple):
    """A peer whose identity is proved says this to our agent."""

    node: int
    body: wire.AgentBody


class Own(NamedTuple):
    """These are this node's blocks from now on; the first has the pods' gateway."""

    blocks: tuple[IPv4Network, ...]


class Fenced(NamedTuple):
    """Traffic from and to exactly these addresses on this host is dropped from now on: their blocks were lost."""

    addresses: tuple[IPv4Address, ...]


class Refusal(NamedTuple):
    """Why something that was asked for cannot be, and what to do about it."""

    what: str
    fix: str


class Fatal(NamedTuple):
    """The agent must stop, for this reason; and what to do about it."""

    what: str
    fix: str


class Answer(NamedTuple):
    """What became of what was asked under `ticket`: a `Refusal`, or what was asked for."""

    ticket: int
    result: object


class CreateLease(NamedTuple):
    """Make the Lease of this block, ours; then say `Settled(number)`."""

    number: int
    place: int


class TakeLease(NamedTuple):
    """Write our name into the Lease of this block, if it still is that object; then say `Settled(number)`."""

    number: int
    place: int
    uid: str


class DeleteLease(NamedTuple):
    """Delete the Lease of this block if it still is that object; then say `Settled(number)`."""

    number: int
    place: int
    uid: str


class Echo(NamedTuple):
    """The heartbeat that was sent under `ticket` is answered."""

    ticket: int
    seconds: float
    """Of the round trip, from control to control."""
    relayed: bool
    """One of the two ways went by relay."""


Effect = (
    seam.ToWorker | KernelMtu | Remember | Log | Said | Own | Fenced | Persist | Answer | Fatal | Echo
    | CreateLease | TakeLease | DeleteLease
)  # fmt: skip


class Outbox:
    """Effects of one step, in order, and the counters of the control plane."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self.counters: dict[str, int] = {}

    def put(self, effect: Effect) -> None:
        if len(self._effects) < bounds.MAX_EFFECTS:
            self._effects.append(effect)
        else:
            self.count("effects_lost")

    def count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1

    def log(self, level: str, key: str, text: str, *, peer: int = 0, address: str = "", reason: str = "") -> None:
        self.put(Log(level, key, text, peer, address, reason))

    def take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
