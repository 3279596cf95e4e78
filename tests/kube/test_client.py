"""Each request has one of few outcomes, an end in time and size, and is counted; over TLS, with tokens that expire."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.kube.apiserver import Served, serving
from tests.kube.reflecting import LOOPS, client_of, node, plant, requests, run, until
from tunrouter.edge.kube import client as client_module
from tunrouter.edge.kube.connection import Patience
from tunrouter.edge.kube.faults import (
    AlreadyExistsError,
    ConflictError,
    GoneError,
    InvalidError,
    NotFoundError,
    OversizeError,
    UnreachableError,
    fault,
)
from tunrouter.edge.kube.objects import (
    CONFIGMAPS,
    EVENTS,
    LEASES,
    NODES,
    ConfigMap,
    Event,
    EventSource,
    Lease,
    LeaseSpec,
    Metadata,
    ObjectReference,
    OwnerReference,
    micro_time,
)
from tunrouter.errors import ClusterError

HASTY = Patience(connect=0.5, answer=0.25, whole=1.0)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def lease(name: str, holder: str = "one", version: str = "") -> Lease:
    return Lease(
        metadata=Metadata(name=name, namespace="default", resource_version=version, labels={"x": "y"}),
        spec=LeaseSpec(holder_identity=holder, acquire_time=micro_time(NOW), lease_transitions=1),
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_a_lease_from_its_creation_to_its_end(tmp_path: Path, loop: str) -> None:
    """The whole life of an object, over TLS, with a token."""

    async def scenario(served: Served) -> None:
        async with client_of(served.access(tmp_path / "sa"), node="n1") as client:
            made = await client.create(LEASES, lease("block"))
            assert made.metadata.uid
            assert made.metadata.creation_timestamp is not None
            assert await client.get(LEASES, "block", "default") == made
            with pytest.raises(AlreadyExistsError, match='"block" already exists'):
                await client.create(LEASES, lease("block"))
            with pytest.raises(ConflictError, match="please apply your changes to the latest version"):
                await client.replace(LEASES, lease("block", "two", "1"))
            taken = await client.replace(LEASES, lease("block", "two", made.metadata.resource_version))
            assert (taken.spec.holder_identity, taken.metadata.uid) == ("two", made.metadata.uid)
            assert [each.spec.acquire_time for each in await client.list(LEASES, labels="x=y")] == [micro_time(NOW)]
            assert await client.list(LEASES, labels="x!=y") == []
            for wrong in ({"uid": "other"}, {"version": made.metadata.resource_version}):
                with pytest.raises(ConflictError, match="Precondition failed"):
                    await client.delete(LEASES, "block", "default", **wrong)
            await client.delete(
                LEASES, "block", "default", uid=made.metadata.uid, version=taken.metadata.resource_version
            )
            with pytest.raises(NotFoundError):
                await client.get(LEASES, "block", "default")
            assert client.writes == 7
            assert client.counts["create", "leases", "409"] == 1
            assert served.do(lambda server: len(server.journal.writes("n1"))) == 7
            assert served.do(lambda server: server.listener.accepted) == 1

    with serving(tmp_path / "tls") as served:
        served.do(lambda server: setattr(server.rights, "tokens_wanted", True))
        served.mount(tmp_path / "sa")
        run(scenario(served), loop)


def test_a_nodes_condition_is_patched_among_others(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        served.do(lambda server: server.plant({**node("n1"), "status": {"conditions": [ready]}}))
        async with client_of(served.access(tmp_path)) as client:
            for status in ("True", "False"):
                condition = {"type": "NetworkUnavailable", "status": status, "reason": "TunrouterIsUp"}
                change = {"status": {"conditions": [condition]}}
                patched = await client.patch(NODES, "n1", change, kind="strategic", subresource="status")
            assert [(each.type, each.status) for each in patched.status.conditions] == [
                ("Ready", "True"),
                ("NetworkUnavailable", "False"),
            ]
            patched = await client.patch(NODES, "n1", {"metadata": {"annotations": {"a": "b"}}, "status": None})
            assert patched.metadata.annotations == {"a": "b"}
            assert len(patched.status.conditions) == 2

    run(scenario())


def test_an_event_is_one_that_the_server_takes(served: Served, tmp_path: Path) -> None:
    def event(name: str, home: str, about: ObjectReference) -> Event:
        return Event(
            metadata=Metadata(name=name, namespace=home), involved_object=about, reason="Conflict", message="why",
            type="Warning", source=EventSource(component="tunrouter"), first_timestamp=NOW, last_timestamp=NOW,
            count=1,
        )  # fmt: skip

    async def scenario() -> None:
        async with client_of(served.access(tmp_path)) as client:
            about = ObjectReference(kind="Node", name="n1", uid="n1")
            made = await client.create(EVENTS, event("n1.1", "default", about))
            again = await client.patch(EVENTS, "n1.1", {"count": 2}, "default")
            assert (made.count, again.count, again.source.component) == (1, 2, "tunrouter")
            with pytest.raises(InvalidError, match=r"involvedObject.namespace"):
                await client.create(EVENTS, event("n1.2", "kube-public", ObjectReference(kind="Node", name="n1")))

    run(scenario())


def test_what_is_wrong_in_itself_is_invalid(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client_of(served.access(tmp_path)) as client:
            wrong: list[dict[str, Any]] = [
                {"metadata": {"name": "x", "namespace": "default"}, "spec": {"acquireTime": "2026-01-01T00:00:00Z"}},
                {"metadata": {"name": "x", "namespace": "default"}, "spec": {"holder": "unknown field"}},
                {"metadata": {"name": "X_y", "namespace": "default"}},
                {"metadata": {"name": "x", "namespace": "default", "labels": {"a": "b c"}}},
            ]
            for body in wrong:
                with pytest.raises(InvalidError):
                    await client.create(LEASES, body)
            with pytest.raises(NotFoundError, match='namespaces "nowhere" not found'):
                await client.create(LEASES, {"metadata": {"name": "x", "namespace": "nowhere"}})
            await client.create(LEASES, lease("x"))
            with pytest.raises(InvalidError, match="must be specified for an update"):
                await client.replace(LEASES, lease("x"))
            with pytest.raises(ValueError, match="no name of an object"):
                await client.get(CONFIGMAPS, "../../secrets/x", "default")

    run(scenario())


def test_lists_come_in_pages_of_one_state(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        plant(served, *(f"n{number}" for number in range(10)))
        async with client_of(served.access(tmp_path)) as client:
            pages = client.pages(NODES, limit=4)
            names = [NODES.decode(raw).metadata.name for raw in (await anext(pages)).items or ()]
            served.do(lambda server: server.remove("v1", "Node", "n9"))
            plant(served, "n5x")
            async for page in pages:
                names += [NODES.decode(raw).metadata.name for raw in page.items or ()]
            assert names == [f"n{number}" for number in range(10)]
            assert requests(served, "list") == 3
            pages = client.pages(NODES, limit=4)
            await anext(pages)
            served.do(lambda server: server.lose_events())
            with pytest.raises(GoneError):
                await anext(pages)

    run(scenario())


def test_a_version_that_the_server_has_not_seen_yet(served: Served, tmp_path: Path) -> None:
    """It was restored from a backup, or another of several servers answers."""

    async def scenario() -> None:
        async with client_of(served.access(tmp_path)) as client:
            with pytest.raises(GoneError, match="Too large resource version"):
                await client.list(NODES, version="1000000")

    run(scenario())


@pytest.mark.parametrize(
    ("planted", "what"),
    [
        ({"mode": "error", "code": 500}, "planted"),
        ({"mode": "error", "code": 503}, "planted"),
        ({"mode": "error", "code": 429, "retry_after": 7}, "planted"),
        ({"mode": "close"}, "closed|broke"),
        ({"mode": "garbage"}, "no HTTP"),
        ({"mode": "broken-json"}, "not understood"),
        ({"mode": "truncated"}, "broke off"),
        ({"mode": "hang"}, "did not answer within 0.25 s"),
    ],
)
def test_what_time_may_cure_is_unreachable(served: Served, tmp_path: Path, planted: dict[str, Any], what: str) -> None:
    async def scenario() -> None:
        plant(served, "n1")
        async with client_of(served.access(tmp_path), patience=HASTY) as client:
            served.do(lambda server: server.faults.plant(**planted))
            for ask in (client.get(NODES, "n1"), client.list(NODES), client.create(LEASES, lease("x"))):
                with pytest.raises(UnreachableError, match=what) as error:
                    await ask
                assert error.value.retry_after == planted.get("retry_after", 0)
            assert client.reachability.away_since is not None
            served.do(lambda server: server.faults.clear())
            assert (await client.get(NODES, "n1")).metadata.name == "n1"
            assert client.reachability.away_since is None

    run(scenario())


def test_a_server_that_is_down_and_back(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client_of(served.access(tmp_path)) as client:
            await client.list(NODES)
            served.do(lambda server: server.down())
            with pytest.raises(UnreachableError, match="is not reached: Connection refused"):
                await client.list(NODES)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            waiting = asyncio.create_task(client.reachability.wait(60, begun))
            await until("the prober has asked", lambda: client.counts["probe", "readyz", "unreachable"])
            served.do(lambda server: server.up())
            await waiting
            assert loop.time() - begun < 6
            await client.reachability.wait(60, begun)  # For what had begun before: there is nothing more to wait for.
            assert loop.time() - begun < 8
            assert client.counts["list", "nodes", "unreachable"] == 1

    run(scenario())


def test_a_question_is_repeated_on_a_fresh_connection_and_a_write_is_not(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        plant(served, "n1")
        async with client_of(served.access(tmp_path)) as client:
            await client.get(NODES, "n1")
            served.do(lambda server: server.faults.plant("close"))
            before = len(served.do(lambda server: list(server.journal)))
            with pytest.raises(UnreachableError):
                await client.get(NODES, "n1")
            assert len(served.do(lambda server: list(server.journal))) - before == 2
            served.do(lambda server: server.faults.clear())
            await client.get(NODES, "n1")
            served.do(lambda server: server.faults.plant("close"))
            with pytest.raises(UnreachableError):
                await client.create(LEASES, lease("x"))
            assert requests(served, "create") == 1

    run(scenario())


def test_connections_are_few_and_kept(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        plant(served, "n1")
        async with client_of(served.access(tmp_path)) as client:
            served.do(lambda server: server.faults.plant("slow", seconds=0.05))
            await asyncio.gather(*(client.get(NODES, "n1") for _ in range(12)))
            assert served.do(lambda server: server.listener.accepted) <= 8
            for _ in range(5):
                await client.get(NODES, "n1")
            assert served.do(lambda server: server.listener.accepted) <= 8
            assert served.do(lambda server: server.listener.most) == client_module.REQUESTS

    run(scenario())


def test_an_answer_is_bounded(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_BYTES", 10_000)

    async def scenario() -> None:
        body = ConfigMap(metadata=Metadata(name="long", namespace="default"), data={"x": "y" * 20_000})
        served.do(lambda server: server.plant({"apiVersion": "v1", "kind": "ConfigMap", **_plain(body)}))
        async with client_of(served.access(tmp_path)) as client:
            with pytest.raises(OversizeError):
                await client.get(CONFIGMAPS, "long", "default")
            assert await client.list(NODES) == []

    run(scenario())


def _plain(body: ConfigMap) -> dict[str, Any]:
    return {"metadata": {"name": body.metadata.name, "namespace": body.metadata.namespace}, "data": body.data}


def test_a_request_that_is_given_up_leaves_nothing(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        plant(served, "n1")
        async with client_of(served.access(tmp_path)) as client:
            served.do(lambda server: server.faults.plant("hang"))
            for _ in range(client_module.REQUESTS + 1):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await client.get(NODES, "n1")
            served.do(lambda server: server.faults.clear())
            assert (await client.get(NODES, "n1")).metadata.name == "n1"

    run(scenario())


def test_objects_are_read_as_the_api_means_them() -> None:
    raw = b"""{"kind":"Node","metadata":{"name":"n","labels":null,"annotations":{"a":"b"},"managedFields":[{}],
        "ownerReferences":null,"creationTimestamp":null},"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"],
        "taints":[{"key":"x"}]},"status":{"addresses":null,"images":[{"names":["x"]}]}}"""
    thing = NODES.decode(raw)
    assert (thing.metadata.labels, thing.metadata.annotations) == ({}, {"a": "b"})
    assert (thing.spec.pod_cidr, thing.spec.pod_cidrs) == ("10.1.0.0/24", ("10.1.0.0/24",))
    assert thing.status.addresses == ()
    owner = OwnerReference(api_version="v1", kind="Node", name="n", uid="u")
    body = LEASES.encode(Lease(metadata=Metadata(name="x", owner_references=(owner,))))
    assert body == (
        b'{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"x","ownerReferences":'
        b'[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}]},"spec":{}}'
    )
    assert micro_time(NOW) == "2026-01-02T03:04:05.000000Z"


def test_a_watch_that_stops_in_the_middle_of_an_object_has_not_ended(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client_of(served.access(tmp_path)) as client:
            served.do(lambda server: server.faults.plant("broken-json"))
            with pytest.raises(UnreachableError, match="ends in the middle of an object"):
                async with client.watch(NODES, "1") as changes:
                    await anext(changes)
            served.do(lambda server: server.faults.clear())
            plant(served, "n1")
            async with client.watch(NODES, "1", seconds=1) as changes:
                kind, raw = await anext(changes)
                assert (kind, NODES.decode(raw).metadata.name) == ("ADDED", "n1")
                with pytest.raises(StopAsyncIteration):
                    await anext(changes)
            assert changes.ended

    run(scenario())


@pytest.mark.parametrize(
    "body", [b'{"message":"one\\n\\ttwo","reason":"x"}', b"one two\n<html>", b'{"message":7}', b"\xff"]
)
def test_every_fault_is_one_line_for_the_user(body: bytes) -> None:
    told = str(fault(500, body, "get nodes"))
    assert told.isprintable()
    assert told.startswith("get nodes: ")
    assert "one two" in told or b"one" not in body


def test_a_proxys_page_is_one_line_for_the_user(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client_of(served.access(tmp_path)) as client:
            served.do(lambda server: server.faults.plant("page", code=502))
            with pytest.raises(ClusterError) as error:
                await client.list(NODES)
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 700

    run(scenario())
