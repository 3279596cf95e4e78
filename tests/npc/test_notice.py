"""How often what is said: in the log when it changes and once a minute, as an Event no more than a cluster can bear."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

import pytest

from tunrouter.core.policy.model import EVERYTHING, Policy
from tunrouter.edge.kube.events import Events
from tunrouter.npc import notice
from tunrouter.npc.cluster import Known
from tunrouter.npc.notice import NOT_ENFORCED, NOT_UNDERSTOOD, Notice, State, in_words

ODD = Policy("shop", "odd", EVERYTHING, ingress=(), faults=("spec.ingress[0] permits nothing: x", "and more"))
FAR = Policy("away", "odd", EVERYTHING, ingress=(), faults=("spec.priority is not known",))
KNOWN = Known(pods=9, policies=3, namespaces=2, faulty=(), listed=True, why="")
FINE = State(KNOWN, pods=4, isolated=2, why="")
NONE = State(Known(9, 0, 0, (), listed=True, why=""), pods=1, isolated=0, why="")
UNLISTED = State(Known(0, 0, 0, (), listed=False, why="refused"), 0, 0, "the cluster's pods are not known: refused")
BROKEN = FINE._replace(why="nftables refused our rules: x")


MANY, HERE = "3 NetworkPolicies in 2 namespaces", "2 of 4 pods here isolated"


def state(base: State = FINE, **known: Any) -> State:
    return base._replace(known=base.known._replace(**known))


# --- in words --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("found", "words"),
    [
        (NONE, "no NetworkPolicies in the cluster, in force, 0 of 1 pod here isolated"),
        (FINE, f"{MANY}, in force, {HERE}"),
        (state(policies=1, namespaces=1), f"1 NetworkPolicy in 1 namespace, in force, {HERE}"),
        (BROKEN, f"{MANY}, NOT in force: nftables refused our rules: x, {HERE}"),
        (UNLISTED, "nothing was changed in the kernel's rules: the cluster's pods are not known: refused"),
        (UNLISTED._replace(why=""), "nothing was changed in the kernel's rules: refused"),
        (state(faulty=(ODD, FAR)),
         f"{MANY}, in force, {HERE}; not all is understood of 2 policies, first shop/odd: {ODD.faults[0]}"),
        (state(faulty=(FAR,)),
         f"{MANY}, in force, {HERE}; not all is understood of 1 policy, first away/odd: {FAR.faults[0]}"),
        (state(why="timed out"),
         f"{MANY}, in force, {HERE} (as last heard; out of touch with the Kubernetes API: timed out)"),
    ],
)  # fmt: skip
def test_the_state_in_a_line(found: State, words: str) -> None:
    assert in_words(found) == words


# --- how often -------------------------------------------------------------------------------------------------------
class Made(NamedTuple):
    reason: str
    about: str
    message: str


class Api:
    """Takes what is created, as a client does."""

    def __init__(self) -> None:
        self.made: list[Made] = []

    async def create(self, resource: object, event: Any) -> None:
        assert event.type == "Warning"
        about = event.involved_object
        self.made.append(Made(event.reason, f"{about.kind} {about.namespace}/{about.name}", event.message))


class Clock:
    """Each look is two seconds after the one before."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looked = False

    def time(self) -> float:
        if self.looked:
            self.now += notice.LOOK_SECONDS
        self.looked = True
        return self.now


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def at_once(_: float) -> None:
        return

    clock = Clock()
    monkeypatch.setattr(asyncio, "sleep", at_once)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    caplog.set_level(logging.INFO, "tunrouter.npc")


def look(*states: State) -> list[Made]:
    """The Events that come of these looks."""
    api, rest = Api(), list(states)

    def next_state() -> State:
        if not rest:
            raise asyncio.CancelledError
        return rest.pop(0)

    async def keep() -> None:
        events = Events(api, "node-a", most=notice.EVENTS, within=notice.EVENTS_SECONDS)  # type: ignore[arg-type]
        await Notice("node-a", next_state, events, lambda policy: policy.namespace == "shop").keep()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keep())
    return api.made


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage().removeprefix("node-a: ")) for record in caplog.records]


def test_the_log_has_each_change_and_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    more = state(policies=4)
    look(*[NONE] * 31, *[FINE] * 29, more)
    assert lines(caplog) == [("INFO", in_words(one)) for one in (NONE, NONE, FINE, more)]


def test_what_is_amiss_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    look(*[FINE] * 6, BROKEN, state(faulty=(ODD,)), UNLISTED)
    assert [level for level, _ in lines(caplog)] == ["INFO", "WARNING", "WARNING", "WARNING"]


def test_at_the_start_what_is_not_in_force_yet_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    look(*[UNLISTED] * 4, FINE)
    assert lines(caplog) == [("INFO", in_words(FINE))]
    caplog.clear()
    look(*[UNLISTED] * 5)
    assert lines(caplog) == [("WARNING", in_words(UNLISTED))]


def test_another_reason_for_being_out_of_touch_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    look(FINE, *[state(why=why) for why in ("refused", "timed out")], FINE)
    assert ["out of touch" in line for _, line in lines(caplog)] == [False, True, False]


# --- Events ----------------------------------------------------------------------------------------------------------
def test_what_is_not_in_force_for_ten_seconds_is_an_event_at_the_node() -> None:
    assert look(FINE, *[BROKEN] * 5, FINE, BROKEN) == [], "it has passed, and began anew"
    (made,) = look(FINE, *[BROKEN] * 40)
    text = "the kernel has not the rules of NetworkPolicies: nftables refused our rules: x"
    assert made == Made(NOT_ENFORCED, "Node /node-a", text)


def test_without_policies_nobody_is_told_that_they_are_not_in_force() -> None:
    assert look(*[state(BROKEN, policies=0)] * 20) == []


def test_a_policy_that_is_not_understood_has_its_own_event_once_where_it_matters() -> None:
    made = look(*[state(faulty=(FAR, ODD))] * 20)
    assert made == [Made(NOT_UNDERSTOOD, "NetworkPolicy shop/odd", "spec.ingress[0] permits nothing: x; and more")]


def test_policies_that_come_and_go_are_no_flood() -> None:
    many = [state(faulty=(ODD._replace(name=f"p{number}"),)) for number in range(50)]
    assert len(look(*many)) == notice.EVENTS
