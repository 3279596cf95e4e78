"""How often what is said: in the log when it changes and once a minute, as an Event no more than a cluster can bear."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

import pytest

from tunrouter.edge.kube.events import Events
from tunrouter.npc import notice
from tunrouter.npc.notice import GONE, NOT_ENFORCED, Notice, state
from tunrouter.npc.policies import Known, Policies

NOBODY = Known(0, 0, listed=True, why="")
SOME = Known(3, 2, listed=True, why="")
MORE = Known(4, 2, listed=True, why="")


class Api:
    """Takes what is created, as a client does."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, str]] = []

    async def create(self, resource: object, event: Any) -> None:
        self.made.append((event.type, event.reason, event.message))


class Stub(Policies):
    def __init__(self, *looks: Known) -> None:
        self.looks = list(looks)
        self.why = ""

    def known(self) -> Known:
        if not self.looks:
            raise asyncio.CancelledError
        return self.looks.pop(0)

    def unready(self) -> str:
        return self.why


class Clock:
    """Each look is two seconds after the one before."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def time(self) -> float:
        self.now += notice.LOOK_SECONDS
        return self.now


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def at_once(_: float) -> None:
        return

    clock = Clock()
    monkeypatch.setattr(asyncio, "sleep", at_once)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    caplog.set_level(logging.INFO, "tunrouter.npc")


def look(*looks: Known, why: str = "") -> list[tuple[str, str, str]]:
    """The Events that come of these looks."""
    api, stub = Api(), Stub(*looks)
    stub.why = why

    async def keep() -> None:
        events = Events(api, "node-a", most=notice.EVENTS, within=notice.EVENTS_SECONDS)  # type: ignore[arg-type]
        await Notice("node-a", stub, events).keep()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keep())
    return api.made


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().removeprefix("node-a: ").partition(" by this")[0] for record in caplog.records]


def test_the_log_has_each_change_and_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    look(*[NOBODY] * 31, *[SOME] * 29, MORE)
    none, some, more = (state(known).partition(" by this")[0] for known in (NOBODY, SOME, MORE))
    assert lines(caplog) == [none, none, some, more]
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING", "WARNING"]


def test_another_reason_for_being_out_of_touch_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    look(SOME, *[SOME._replace(why=why) for why in ("refused", "timed out", "refused")], SOME)
    assert ["out of touch" in record.getMessage() for record in caplog.records] == [False, True, False]


def test_one_is_said_to_be_one() -> None:
    assert state(Known(1, 1, listed=True, why="")).startswith("1 NetworkPolicy in 1 namespace is NOT enforced by this")
    assert state(MORE).startswith("4 NetworkPolicies in 2 namespaces are NOT enforced by this version; unless")


def test_nothing_is_said_of_what_is_still_awaited(caplog: pytest.LogCaptureFixture) -> None:
    look(Known(0, 0, listed=False, why=""), why="the first list is not in")
    assert caplog.records == []
    look(Known(0, 0, listed=False, why="refused"))
    assert lines(caplog) == ["the NetworkPolicies are not known, and this version would not enforce them: refused"]


def test_the_warning_is_an_event_once_and_is_taken_back_once() -> None:
    made = look(NOBODY, SOME, SOME, NOBODY, NOBODY, NOBODY)
    assert [(kind, reason) for kind, reason, _ in made] == [("Warning", NOT_ENFORCED), ("Normal", GONE)]


def test_what_comes_again_is_said_again() -> None:
    assert [reason for _, reason, _ in look(SOME, NOBODY, SOME)] == [NOT_ENFORCED, GONE, NOT_ENFORCED]


def test_policies_that_come_and_go_are_no_flood() -> None:
    assert len(look(*[SOME, MORE, NOBODY] * 20)) == notice.EVENTS


def test_while_out_of_touch_the_cluster_is_told_nothing() -> None:
    assert look(SOME._replace(why="refused")) == []


class Seen(NamedTuple):
    """Of a reflector."""

    synced: bool
    why: str = "refused"
    out_of_touch_since: float = 100.0


@pytest.mark.parametrize(("synced", "at", "ready"), [(True, 101.0, True), (False, 109.0, False), (False, 110.0, True)])
def test_ready_is_who_has_seen_them_or_waits_in_vain(
    synced: bool, at: float, ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: Clock(at - notice.LOOK_SECONDS))
    found = Policies.__new__(Policies)
    found.reflector = Seen(synced)  # type: ignore[assignment]
    assert found.unready() == ("" if ready else "the NetworkPolicies are not known: refused")
