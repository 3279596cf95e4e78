"""A pod that attacks, all whom it could reach, and witnesses of what gets through.

    host1: attacker, neighbour ══ tunnel, underlay ══ host2: far          outside

Law: an absence counts only where a presence would have been seen. So each witness is shown what the attacker may send,
before the attack and behind it on the same way; and of frames that it may never send, the same from somebody who may.
Nobody may notice the attack either: connections are used all the while, and who knew whom by which MAC does so still.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Final, Self

from tests.runtimes import forged
from tests.runtimes.forged import BROADCAST, GROUP, NEAREST, SLOW
from tests.runtimes.inside import Intake, Talk, Wire, in_pod, marks, on_host, outside
from tests.runtimes.runtime import Pair, Pod
from tunrouter.bench.fabric import GATEWAY
from tunrouter.bench.namespaces import wait_until
from tunrouter.errors import HostError

KINDS: Final = (
    forged.IPV4, forged.ARP, forged.IPV6, forged.VLAN, forged.STACKED,
    forged.PPPOE, forged.EAPOL, forged.EXPERIMENT, forged.LLDP,
)  # fmt: skip
INTAKE: Final = "the host's own intake"
CONTROL: Final = "control"
"""The name of a door by which a frame may come."""
SHOWN_SECONDS: Final = 10.0
AGAIN_SECONDS: Final = 0.2
BATCH: Final = 200
"""Frames between two looks after the others."""


class Scene:
    """A context."""

    def __init__(self, pair: Pair, attacker: Pod) -> None:
        one, two = pair
        self._stack = ExitStack()
        self.attacker = in_pod(attacker, "attacker")
        self.neighbour, self.far = (in_pod(each.launch("sleep", "infinity"), name)
                                    for each, name in ((one, "neighbour"), (two, "far")))  # fmt: skip
        self.host, self.other, self.outside = on_host(one.host), on_host(two.host), outside(one.host.lab)
        self.mac, self.gateway, self.mac_of_neighbour = (
            each.mac for each in (self.attacker, self.host, self.neighbour)
        )
        self.places = {
            "the neighbour": self.neighbour.address,
            "the host": self.host.address,
            "the host's underlay": one.host.address,
            "the far pod": self.far.address,
            "the other host": self.other.address,
            "the other host's underlay": two.host.address,
            "the outside": GATEWAY,
        }
        near, other = (self.host.name, INTAKE), (self.other.name,)
        seers = ((self.neighbour.name,), near, near, (self.far.name,), other, other, (self.outside.name,))
        self._seers = dict(zip(self.places, seers, strict=True))
        """The witnesses of what comes to each."""
        self.doors = {
            "the gateway": self.gateway,
            "the neighbour": self.mac_of_neighbour,
            "all": BROADCAST,
            "a group": GROUP,
            "a bridge": SLOW,
        }
        self.nearest = {"the nearest bridge": NEAREST}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._weapon = stack.enter_context(Wire(self.attacker))
            self._witnesses = {
                place.name: stack.enter_context(Wire(place, *kinds))
                for place, kinds in (
                    (self.neighbour, ()), (self.far, ()), (self.outside, ()), (self.host, KINDS), (self.other, KINDS)
                )
            }  # fmt: skip
            self._witnesses[INTAKE] = stack.enter_context(Intake(self.host, *forged.PROTOCOLS.values()))
            self.talks = [
                stack.enter_context(Talk(self.neighbour, server)) for server in (self.host, self.far, self.outside)
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def attack(self, frames: Iterable[bytes]) -> dict[str, set[str]]:
        """What got through, by its witness."""
        frames = list(frames)
        self._show_what_it_may("before")
        before = self._known()
        for start in range(0, len(frames), BATCH):
            for frame in frames[start : start + BATCH]:
                self._weapon.send(frame)
            for talk in self.talks:
                talk.go_on()
        self._show_what_it_may("after")
        assert self._known() == before
        forbidden = marks(frames)
        through = {name: witness.seen() & forbidden for name, witness in self._witnesses.items()}
        return {name: seen for name, seen in through.items() if seen}

    def _show_what_it_may(self, when: str) -> None:
        """In its own name, to everybody whom we watch; what it sent earlier has come by then."""
        shown: dict[str, list[bytes]] = {}
        for name, seers in self._seers.items():
            own, target = {when: self.attacker.address}, {name: self.places[name]}
            frames = list(forged.packets(own, target, {CONTROL: self.mac}, {CONTROL: self.gateway}))
            for seer in seers:
                shown.setdefault(seer, []).extend(frames)
        self._show(self._weapon, shown)

    def show_kinds(self, frames: Iterable[bytes]) -> None:
        """To the neighbour by the bridge itself, to the host from outside: that these frames would be seen there."""
        frames = list(frames)
        with Wire(self.host) as bridge, Wire(self.outside) as wire:
            self._show(bridge, {self.neighbour.name: frames})
            self._show(wire, {self.host.name: frames})

    def _show(self, sender: Wire, shown: Mapping[str, Sequence[bytes]]) -> None:
        """To each witness its frames, again and again until all have seen theirs."""
        deadline = time.monotonic() + SHOWN_SECONDS
        while missed := self._missed(sender, shown):
            assert time.monotonic() < deadline, f"sent by {sender.place}, and not seen: {missed}"

    def _missed(self, sender: Wire, shown: Mapping[str, Sequence[bytes]]) -> dict[str, set[str]]:
        """What each witness has not seen soon after it was sent."""
        for frames in shown.values():
            for frame in frames:
                sender.send(frame)
        missed: dict[str, set[str]] = {}

        def all_seen() -> bool:
            for name, frames in shown.items():
                missed[name] = marks(frames) - self._witnesses[name].seen()
            return not any(missed.values())

        with suppress(HostError):
            wait_until("all is seen", all_seen, AGAIN_SECONDS, pause=0.002)
        return {name: unseen for name, unseen in missed.items() if unseen}

    def _known(self) -> dict[str, object]:
        """Who knows whom by which MAC."""
        known: dict[str, object] = {
            place.name: place.neighbours() for place in (self.neighbour, self.host, self.far, self.other)
        }
        return known | {"bridge": sorted(self.host.run("bridge", "fdb", "show", "br", self.host.device).splitlines())}

    def others_than(self, *names: str) -> dict[str, str]:
        return {name: address for name, address in self.places.items() if name not in names}
