"""Whether a node is ready: one reason at a time, in the order in which they have to go away."""

from __future__ import annotations

from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunrouter.agent.readiness import Readiness

TROUBLE = "the host's set-up could not be repaired: nft is gone"
FOREIGN = "00-other.conflist comes before ours"


class Node:
    """All that readiness depends on, in order; nothing is in the way."""

    def __init__(self) -> None:
        self.host = SimpleNamespace(trouble="", gateway=IPv4Address("10.32.1.1"), host=SimpleNamespace(full=False))
        self.underlay = SimpleNamespace(trouble="")
        self.foreign = ""
        self.runtimes = SimpleNamespace(hindrance=lambda: self.foreign)
        self.free = 200
        ipam = SimpleNamespace(reason="")
        self.allocator = SimpleNamespace(
            ipam=ipam,
            addresses=SimpleNamespace(free=lambda now: self.free),
            registry=SimpleNamespace(hindrance=""),
        )
        self.control = SimpleNamespace(stopped=False, node=SimpleNamespace(allocator=self.allocator))
        self.attachments = SimpleNamespace(closed=False)
        self.silence = ""
        self.readiness = Readiness(
            cast("Any", self.host), cast("Any", self.underlay), cast("Any", self.runtimes), lambda: self.silence
        )

    def stands(self) -> None:
        self.readiness.watch(cast("Any", self.control), cast("Any", self.attachments))


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_bridge_without_room_hinders_pods(node: Node) -> None:
    node.stands()
    node.host.host.full = True
    assert node.readiness.unready() == "this node has as many pods as a bridge has ports"


def test_without_policies_pods_are_kept_away_and_the_agent_is_ready(node: Node) -> None:
    node.stands()
    node.silence = "weave-npc does not answer"
    assert (node.readiness.hindrance(), node.readiness.unready()) == ("weave-npc does not answer", "")
    node.free = 0
    assert node.readiness.hindrance() == node.readiness.unready() == "no address is free: all are held or rest"


def test_reasons_come_one_after_the_other(node: Node) -> None:
    node.host.trouble, node.attachments.closed, node.foreign = TROUBLE, True, FOREIGN
    node.host.gateway, node.free = None, 0
    told = [node.readiness.unready()]
    node.stands()
    told.append(node.readiness.unready())
    node.host.trouble = ""
    told.append(node.readiness.unready())
    node.attachments.closed = False
    told.append(node.readiness.unready())
    node.foreign = ""
    told.append(node.readiness.unready())
    node.host.gateway = IPv4Address("10.32.1.1")
    told.append(node.readiness.unready())
    node.free = 1
    told.append(node.readiness.unready())
    node.control.stopped = True
    told.append(node.readiness.unready())
    assert told == [
        "the agent is still starting",
        TROUBLE,
        "this node is leaving its cluster",
        FOREIGN,
        "this node has no block of addresses yet: it asks for one",
        "no address is free: all are held or rest",
        "",
        "the agent is stopping",
    ]


def test_why_there_is_no_block_or_address_is_told(node: Node) -> None:
    node.stands()
    node.allocator.ipam.reason, node.free = "no quorum: 1 of 3 electors reachable", 0
    assert node.readiness.unready() == "no address is free: no quorum: 1 of 3 electors reachable"
    node.host.gateway = None
    assert node.readiness.unready().endswith("no block of addresses yet: no quorum: 1 of 3 electors reachable")


def test_a_host_in_trouble_hinders_no_pod_from_being_asked_for(node: Node) -> None:
    """CNI's STATUS tells what would fail for certain; a repair may succeed by then."""
    node.stands()
    node.host.trouble = TROUBLE
    assert node.readiness.hindrance() == ""
