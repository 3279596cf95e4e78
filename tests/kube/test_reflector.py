"""What the memory of a kind of objects is worth: it follows, it resumes, it lists again, and it outlives its server."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.kube.apiserver import ApiServer, Served, serving
from tests.kube.reflecting import LOOPS, client_of, node, nodes_of, plant, reflecting, requests, run, stored, until
from tunrouter.edge.kube import client as client_module
from tunrouter.edge.kube import reachability, reflector
from tunrouter.edge.kube.connection import Patience
from tunrouter.edge.kube.objects import NODES, PODS, Node

BUSY = Patience(connect=0.5, answer=0.5, whole=1.0)
HASTY = Patience(connect=0.5, answer=0.5, whole=1.0, silence=0.6)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of hundredths instead of seconds."""
    monkeypatch.setattr(reflector, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(reflector, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(reachability, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(reachability, "MOST_SECONDS", 0.05)


@pytest.mark.parametrize("loop", LOOPS)
def test_it_follows(served: Served, tmp_path: Path, loop: str) -> None:
    async def scenario() -> None:
        plant(served, "a", "b")
        async with nodes_of(served, tmp_path) as (nodes, recorder):
            assert recorder.heard == [("replaced", "a,b")]
            plant(served, "c")
            served.do(lambda server: server.plant(node("a", labels={"x": "y"})))
            served.do(lambda server: server.remove("v1", "Node", "b"))
            await until("three changes", lambda: len(recorder.heard) == 4)
            assert recorder.heard[1:] == [("changed", "c"), ("changed", "a"), ("gone", "b")]
            assert {name for _, name in nodes.objects} == {"a", "c"}
            assert nodes.objects["", "a"].metadata.labels == {"x": "y"}
            assert nodes.synced
            assert nodes.why == ""
            assert nodes.out_of_touch_since is None

    run(scenario(), loop)


def test_what_no_longer_matches_its_selector_is_gone(served: Served, tmp_path: Path) -> None:
    def pod(name: str, home: str, **labels: str) -> dict[str, Any]:
        spec = {"nodeName": home, "containers": [{"name": "c", "image": "busybox"}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}

    async def scenario() -> None:
        pods = (pod("mine", "n1", app="x"), pod("other", "n2", app="x"), pod("plain", "n1"))
        served.do(lambda server: [server.plant(thing) for thing in pods])
        async with client_of(served.access(tmp_path)) as client:
            here = reflecting(client, PODS, labels="app=x", fields="spec.nodeName=n1", namespace="default")
            async with here as (_, recorder):
                assert recorder.heard == [("replaced", "mine")]
                served.do(lambda server: server.plant(pod("plain", "n1", app="x")))
                served.do(lambda server: server.plant(pod("mine", "n1", app="y")))
                await until("both changes", lambda: len(recorder.heard) == 3)
                assert recorder.heard[1:] == [("changed", "plain"), ("gone", "mine")]

    run(scenario())


@pytest.mark.parametrize("as_status", [False, True])
@pytest.mark.usefixtures("quick")
def test_a_new_list_tells_exact_differences(served: Served, tmp_path: Path, as_status: bool) -> None:
    async def scenario() -> None:
        plant(served, "same", "altered", "deleted", "made-again")
        async with nodes_of(served, tmp_path) as (nodes, recorder):

            def while_it_is_away(server: ApiServer) -> None:
                server.api.gone_as_status = as_status
                server.faults.plant("error", code=503)
                server.api.reset_watches()
                server.plant(node("altered", annotations={"x": "y"}))
                for name in ("deleted", "made-again"):
                    server.remove("v1", "Node", name)
                server.plant(node("made-again"))
                server.plant(node("new"))
                server.api.compact()

            served.do(while_it_is_away)
            await until("it noticed", lambda: not nodes.in_touch)
            assert nodes.synced
            assert len(nodes.objects) == 4
            assert nodes.out_of_touch_since is not None
            served.do(lambda server: server.faults.clear())
            await until("it is back", lambda: nodes.in_touch and nodes.lists == 2)
            assert recorder.heard[:3] in (
                [("replaced", "altered,deleted,made-again,same"), *each]
                for each in (
                    [("gone", "deleted"), ("changed", "altered")],
                    [("gone", "deleted"), ("gone", "made-again")],
                )
            )
            assert sorted(recorder.heard[1:]) == [
                ("changed", "altered"), ("changed", "made-again"), ("changed", "new"),
                ("gone", "deleted"), ("gone", "made-again"),
            ]  # fmt: skip
            assert recorder.known == stored(served)
            again = served.do(lambda server: [each.query for each in server.journal.requests("list")][-1])
            assert "resourceVersionMatch=NotOlderThan" in again
            assert "resourceVersion=0" not in again

    run(scenario())


@pytest.mark.usefixtures("quick")
def test_bookmarks_spare_a_list(tmp_path: Path) -> None:
    """What is watched does not change, while the rest of the cluster does, until its old changes are forgotten."""

    async def scenario(served: Served) -> None:
        plant(served, "a")
        async with nodes_of(served, tmp_path) as (nodes, _):
            served.do(lambda server: server.plant({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}))
            version = served.do(lambda server: server.store.version)
            await until("a bookmark", lambda: nodes._version == str(version))
            served.do(lambda server: setattr(server.store, "oldest", version))
            served.do(lambda server: server.api.reset_watches())
            await until("the next watch", lambda: requests(served, "watch") == 2 and nodes.in_touch)
            plant(served, "b")
            await until("it heard of b", lambda: len(nodes.objects) == 2)
            assert nodes.lists == 1

    with serving(bookmark_seconds=0.05) as served:
        run(scenario(served))


def test_a_watch_that_ends_is_resumed(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "WATCH_SECONDS", 2)
    monkeypatch.setattr(reflector, "LASTING_SECONDS", 0.5)

    async def scenario() -> None:
        async with nodes_of(served, tmp_path) as (nodes, recorder):
            await until("a second watch", lambda: requests(served, "watch") == 2, 5)
            assert nodes.in_touch
            assert nodes.lists == 1
            plant(served, "late")
            await until("it heard", lambda: recorder.heard[1:] == [("changed", "late")])
            assert served.do(lambda server: server.listener.accepted) == 1

    run(scenario())


def test_a_watch_that_ends_at_once_is_no_reason_to_hurry(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        served.do(lambda server: setattr(server.api, "longest_watch", 0.0))
        async with nodes_of(served, tmp_path, wait=False) as (nodes, _):
            await until("some watches", lambda: requests(served, "watch") >= 2)
            await asyncio.sleep(1.0)
            assert requests(served, "watch") <= 6
            await until("it tells why", lambda: "ended it at once" in nodes.why)

    run(scenario())


def test_an_object_that_is_not_understood_is_left_out(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        plant(served, "good", "spoilt")

        def spoil(server: ApiServer, name: str) -> None:
            key = next(key for key in server.store.objects if key[2] == name)
            known = server.store.objects[key]
            server.store._put(*key, known, {**known, "spec": {"unschedulable": "perhaps"}})

        async with nodes_of(served, tmp_path) as (nodes, recorder):
            served.do(lambda server: spoil(server, "spoilt"))
            plant(served, "next")
            await until("the good one", lambda: ("", "next") in nodes.objects)
            assert nodes.skipped == 1
            assert ("", "spoilt") in nodes.objects
            served.do(lambda server: server.lose_events())
            await until("a second list", lambda: nodes.lists == 2 and nodes.in_touch)
            assert nodes.skipped == 2
            assert ("gone", "spoilt") not in recorder.heard
        async with nodes_of(served, tmp_path) as (nodes, _):
            assert {name for _, name in nodes.objects} == {"good", "next"}
            assert nodes.skipped == 1

    run(scenario())


@pytest.mark.usefixtures("quick")
def test_a_listener_that_fails_stops_nothing(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thing: Node) -> None:
        raise KeyError(thing.metadata.name)

    async def scenario() -> None:
        async with nodes_of(served, tmp_path) as (nodes, recorder):
            plant(served, "a")
            await until("a", lambda: recorder.known)
            monkeypatch.setattr(recorder, "gone", fail)
            served.do(lambda server: server.remove("v1", "Node", "a"))
            plant(served, "b")
            await until("b", lambda: "b" in recorder.known)
            assert nodes.in_touch
            assert "was not dealt with" in caplog.text

    run(scenario())


@pytest.mark.usefixtures("quick")
def test_a_silent_server_is_left(served: Served, tmp_path: Path) -> None:
    """It takes what it is sent, and tells nothing: no bookmark, no change, no end."""

    async def scenario() -> None:
        async with nodes_of(served, tmp_path, patience=HASTY) as (nodes, _):
            served.do(lambda server: server.faults.plant("hang"))
            await until("it noticed", lambda: not nodes.in_touch, 3)
            plant(served, "a")
            served.do(lambda server: server.faults.clear())
            await until("it is back", lambda: nodes.in_touch and ("", "a") in nodes.objects, 5)

    run(scenario())


def test_a_kind_that_never_changes_is_watched_again_and_that_is_no_news(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that has heard of no change since it started sends no bookmarks."""
    monkeypatch.setattr(reflector, "LASTING_SECONDS", 0.1)
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        plant(served, "a")
        async with (
            client_of(served.access(tmp_path), patience=HASTY) as client,
            reflecting(client, NODES) as (nodes, recorder),
        ):
            await until("more watches", lambda: requests(served, "watch") >= 3)
            assert nodes.in_touch
            plant(served, "b")
            await until("it heard of b", lambda: recorder.heard[1:] == [("changed", "b")])
            assert nodes.lists == 1
            assert caplog.text.count("in touch with the cluster") == 1
            assert "out of touch" not in caplog.text
            assert not [verb for verb, _, _ in client.counts if verb == "probe"]

    run(scenario())


@pytest.mark.usefixtures("quick")
def test_a_store_put_back_to_an_older_state_is_listed_anew(tmp_path: Path) -> None:
    async def scenario(served: Served) -> None:
        plant(served, "a")
        backup = served.do(lambda server: (dict(server.store.objects), server.store.version))
        plant(served, "b", "c", "d")
        async with nodes_of(served, tmp_path) as (nodes, recorder):

            def put_back(server: ApiServer) -> None:
                server.store.objects, server.store.version = backup
                server.store._history.clear()

            served.do(put_back)
            await until("the older state", lambda: recorder.known == stored(served) and nodes.in_touch, 5)
            plant(served, "e")
            await until("e", lambda: recorder.known == stored(served))

    with serving(bookmark_seconds=0.1) as served:
        run(scenario(served))


def test_a_list_too_long_for_one_answer_comes_in_pages(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ANSWER_BYTES", 40_000)
    monkeypatch.setattr(reflector, "PAGE", 50)

    async def scenario() -> None:
        plant(served, *(f"node-{number:03}" for number in range(300)))
        async with nodes_of(served, tmp_path) as (nodes, _):
            assert len(nodes.objects) == 300
            assert nodes.lists == 1

    run(scenario())
