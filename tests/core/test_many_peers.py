"""A node that knows very many others: what one step costs must not grow with their square."""

from __future__ import annotations

from ipaddress import IPv4Network
from random import Random

import pytest

from tests.core.villages import local
from tunrouter.core import bounds, record, seam
from tunrouter.core.mesh import Mesh
from tunrouter.core.node import Node
from tunrouter.core.record import NodeBody
from tunrouter.core.session import GIVE_UP_SECONDS, Session
from tunrouter.core.states import State

RANGE = IPv4Network("10.32.0.0/12")


def knowing(count: int) -> Node:
    """A node that was told of so many others, of which none answers."""
    node = Node(local(1), RANGE)
    node.start((), 100.0)
    others = [local(seed).identity for seed in range(1000, 1000 + count)]
    told = [
        record.write(one, 1, 1, NodeBody(f"n{number}", 1376, ((f"172.16.{number >> 8}.{number & 255}", 6783),)))
        for number, one in enumerate(others)
    ]
    node.mesh.preload(told, 100.0)
    return node


def test_many_peers_that_do_not_answer_are_given_up_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    node, count = knowing(200), 200
    node.local.discovery = False
    for other in node.mesh.nodes:
        node.on_messages((seam.Wanted(other),), 100.0)
    assert sum(session.state is State.OPENING for session in node.sessions.values()) == count
    looks: list[None] = []

    def candidates(session: Session) -> set[seam.Endpoint]:
        looks.append(None)
        return {e for e in (session.endpoint, session.home, *session.published) if e is not None}

    monkeypatch.setattr(Session, "candidates", property(candidates))
    node.on_timer(100.0 + GIVE_UP_SECONDS + 1)
    assert all(session.state is State.CLOSED for session in node.sessions.values())
    assert len(looks) < 5 * count


def test_who_looks_for_neighbours_does_not_look_at_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    node = knowing(3 * bounds.CHOOSE_TRIES)
    asked: list[int] = []
    endpoints = Mesh.endpoints

    def counted(mesh: Mesh, other: int) -> tuple[seam.Endpoint, ...]:
        asked.append(other)
        return endpoints(mesh, other)

    monkeypatch.setattr(Mesh, "endpoints", counted)
    node.on_timer(101.3)
    assert sum(session.chosen for session in node.sessions.values()) == bounds.CHOSEN_NEIGHBOURS
    assert len(asked) < 10 * bounds.CHOSEN_NEIGHBOURS


def test_neighbours_are_chosen_by_chance() -> None:
    chosen: set[int] = set()
    for seed in range(8):
        node = knowing(40)
        node.local.random = Random(seed).randbytes
        node.on_timer(101.3)
        chosen |= {session.node for session in node.sessions.values() if session.chosen}
    assert len(chosen) > 15
