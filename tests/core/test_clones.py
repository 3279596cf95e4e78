"""Two machines with one identity: which of them stays."""

from __future__ import annotations

from typing import cast

from tests.core.villages import local
from tunrouter.core import bounds
from tunrouter.core.clones import MOST, ROW_SECONDS, Clones
from tunrouter.core.journal import Journal
from tunrouter.core.mesh import Mesh
from tunrouter.core.outbox import Fatal, Outbox


class Told:
    """What others know of this node's later lives."""

    usurper = outlived = 0
    again = 0

    def say_again(self) -> None:
        self.again += 1


class World:
    def __init__(self) -> None:
        self.mesh, self.journal, self.out = Told(), Journal(), Outbox()
        self.local = local(1, 5)
        self.clones = Clones(self.local, cast("Mesh", self.mesh), self.journal, self.out)
        self.clones.start(100.0)

    def hear(self, incarnation: int, now: float) -> list[Fatal]:
        self.mesh.usurper = incarnation
        self.clones.tick(now)
        return [effect for effect in self.out.take() if isinstance(effect, Fatal)]

    def commit(self, now: float = 200.0) -> None:
        persist = self.journal.take()
        assert persist is not None
        self.journal.committed(persist.number, now)


def test_who_was_there_first_takes_a_later_incarnation_when_it_is_on_disk() -> None:
    world = World()
    assert world.hear(9, 100.0 + bounds.CLONE_SECONDS) == []
    assert world.local.incarnation == 5, "not before it is durable"
    assert world.hear(9, 106.0) == []
    world.commit()
    assert world.local.incarnation == 10
    assert world.mesh.again == 1


def test_who_has_just_started_is_the_copy_and_stops() -> None:
    world = World()
    (fatal,) = world.hear(6, 100.0 + bounds.CLONE_SECONDS - 0.1)
    assert "state directory" in fatal.fix
    assert world.local.incarnation == 5


def test_two_that_were_up_for_long_do_not_go_on_for_ever() -> None:
    world = World()
    for _ in range(MOST):
        assert world.hear(world.local.incarnation + 1, 200.0) == []
        world.commit()
    assert world.hear(world.local.incarnation + 1, 200.0)


def test_an_earlier_life_is_no_clone() -> None:
    world = World()
    assert world.hear(5, 101.0) == []
    assert world.journal.take() is None


def test_an_answer_now_and_then_does_not_add_up() -> None:
    world = World()
    for turn in range(2 * MOST):
        now = 200.0 + turn * ROW_SECONDS
        assert world.hear(world.local.incarnation + 1, now) == []
        world.commit(now)


def test_a_copy_that_is_started_again_and_again_does_not_end_who_was_there_first() -> None:
    world = World()
    for turn in range(4 * MOST):
        assert world.hear(1000 + 10 * turn, 200.0 + 2 * turn) == []
        world.commit(200.0 + 2 * turn)
    assert world.local.incarnation > 1000


def test_who_was_given_up_in_this_life_begins_another_one_at_times() -> None:
    world = World()
    world.mesh.outlived = 4
    world.clones.tick(200.0)
    assert world.journal.take() is None, "that was another life"
    for life, now in ((6, 200.0), (7, 200.0 + bounds.OUTLIVED_SECONDS)):
        world.mesh.outlived = world.local.incarnation
        world.clones.tick(now)
        world.commit(now)
        assert world.local.incarnation == life
        world.mesh.outlived = life
        world.clones.tick(now + 1.0)
        assert world.journal.take() is None, "not so soon"
    assert world.mesh.again == 2
