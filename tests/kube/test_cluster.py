"""An agent's part in a cluster, with an API server and a host's directories, and no core: what it is told, and when.

The server fails in one request while the others work, or all at once, or comes late.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.kube.apiserver import Served, serving
from tests.kube.reflecting import client_of, node, run, until
from tests.test_config import Files
from tunrouter.agent.barrier import Barrier
from tunrouter.agent.kubernetes import blocks, cluster, presence
from tunrouter.agent.kubernetes.blocks import Blocks
from tunrouter.agent.kubernetes.cluster import Cluster
from tunrouter.agent.kubernetes.presence import Presence
from tunrouter.agent.supervision import Tasks
from tunrouter.config import Config, resolve
from tunrouter.core.leases import Away, Lease, Members, News, Settled, Synced
from tunrouter.core.outbox import CreateLease, DeleteLease
from tunrouter.edge.kube.client import REQUESTS
from tunrouter.edge.kube.faults import UnreachableError
from tunrouter.edge.kube.objects import LEASES
from tunrouter.edge.kube.reflector import Reflector

LEAVING = "this node is leaving its cluster"


class Scene:
    """One node's cluster and what its core would hear."""

    def __init__(self, url: str, account: Path, directory: Path) -> None:
        self.heard: list[News] = []
        self.repaired: list[str] = []
        self.unready = ""
        self.troubles: dict[str, str] = {}
        self.wishes: dict[int, Any] = {}
        self.barrier = Barrier(logging.getLogger("test"))
        self.tasks = Tasks(asyncio.get_running_loop(), self.barrier)
        self.network = directory / "net.d" / "05-tunrouter.conflist"
        self.binaries = directory / "bin"
        flags = {"name": "host1", "kubernetes": True, "state_dir": str(directory / "state"),
                 "cni_bin_dir": str(self.binaries), "cni_conf_dir": str(directory / "net.d")}  # fmt: skip
        config: Config = resolve(flags, {}, Files(), hostname="here").config
        environ = {"TUNROUTER_APISERVER": url, "TUNROUTER_SERVICE_ACCOUNT": str(account)}
        underlay = SimpleNamespace(prefer=self.wishes.__setitem__)
        self.presence = Presence(config, lambda: self.unready, self.repaired.append)
        self.cluster = Cluster(
            config, environ, cast("Any", underlay), self.presence, self.barrier, self.tasks.spawn,
            lambda: self.troubles, lambda: "it runs",
        )  # fmt: skip
        local = SimpleNamespace(block_length=24, id=7)
        self.leases = SimpleNamespace(cluster=0)
        self.control = SimpleNamespace(
            node=SimpleNamespace(local=local, sessions={}, allocator=SimpleNamespace(leases=self.leases)),
            hear_api=self.heard.append,
            leased=lambda effect: None,
        )
        self.targets = SimpleNamespace(configure=lambda peers: None)

    def join(self) -> None:
        self.cluster.join(cast("Any", self.control), cast("Any", self.targets))

    def last(self, *kinds: type) -> News | None:
        return next((news for news in reversed(self.heard) if isinstance(news, kinds)), None)


@contextlib.asynccontextmanager
async def scene(url: str, account: Path, directory: Path, *, before: int = 0) -> AsyncIterator[Scene]:
    """Started and joined. `before`: the cluster's id on the disk."""
    async with contextlib.AsyncExitStack() as stack:
        made = Scene(url, account, directory)
        made.leases.cluster = before
        await made.cluster.start(stack)
        made.join()
        try:
            yield made
        finally:
            made.tasks.cancel()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes place ten times a second."""
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(cluster, "KNOWN_SECONDS", 0.5)


def there(served: Served) -> None:
    served.do(lambda server: server.plant(node("host1")))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": blocks.NAMESPACE}}
    served.do(lambda server: server.plant(namespace))


def condition(served: Served) -> list[Any]:
    def look(server: Any) -> list[Any]:
        found = [thing for (kind, _, name), thing in server.store.objects.items() if name == "host1"]
        return [each["status"] for each in found[0].get("status", {}).get("conditions", [])]

    return cast("list[Any]", served.do(look))


# --- in touch and out of it ------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("brief")
def test_what_a_pod_has_mounted_may_come_late(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        there(served)
        account = tmp_path / "account"
        async with scene(served.url, account, tmp_path) as made:
            await until("the core knows that there is no API", lambda: made.last(Away))
            assert "token is missing" in made.cluster.why
            assert made.cluster.why in made.cluster.warnings[0]
            assert "token is missing" in made.cluster.report.away
            await asyncio.sleep(0.5)
            assert len([one for one in caplog.records if "is missing" in one.getMessage()]) == 1
            served.mount(account)
            await until("all Leases are known", lambda: made.last(Synced))
            assert made.last(Members) is not None
            assert (made.cluster.why, made.cluster.report.registered) == ("", True)

    with serving(tmp_path / "tls") as served:
        run(scenario(served))


@pytest.mark.usefixtures("brief")
def test_what_answers_late_holds_up_nothing_else(served: Served, tmp_path: Path) -> None:
    """Condition, settings and Events hang for ten seconds each; what pods need does not wait for them."""

    async def scenario() -> None:
        there(served)
        served.do(
            lambda server: server.faults.plant(
                "hang", verbs=["get", "patch", "create"], plurals=["nodes", "configmaps", "events"]
            )
        )
        async with scene(served.url, tmp_path / "account", tmp_path) as made:
            made.troubles["RangeConflict"] = "a bridge is in our range"
            await until("it is installed", made.network.exists, 3)
            await until("all Leases are known", lambda: made.last(Synced), 3)
            assert made.cluster._client is not None
            turns = made.cluster._client._turns
            await until("condition and settings hang", lambda: turns._value == REQUESTS - 2, 3)
            made.network.unlink()
            await until("it is there again", made.network.exists, 3)
            served.do(lambda server: server.faults.plant("close", verbs=["list", "watch"]))
            served.do(lambda server: server.api.reset_watches())
            await until("the core knows", lambda: made.last(Away, Synced).__class__ is Away, 4)
            served.do(lambda server: server.faults.clear())
            began = asyncio.get_running_loop().time()
            await until("the core knows again", lambda: made.last(Away, Synced).__class__ is Synced, 10)
            await until("the condition is set", lambda: condition(served) == ["False"], 10)
            assert asyncio.get_running_loop().time() - began < 10

    run(scenario())


@pytest.mark.usefixtures("brief")
def test_requests_that_fail_by_mistake_begin_again(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody thought of: the view is out of touch, it is counted, and the view is whole again."""

    async def scenario() -> None:
        there(served)
        async with scene(served.url, tmp_path / "account", tmp_path) as made:
            await until("in touch", lambda: made.cluster.report.away == "" and made.last(Synced))
            real = Reflector._obey

            def broken(self: Reflector[Any], kind: str, raw: Any) -> None:
                raise RuntimeError("nobody thought of this")

            monkeypatch.setattr(Reflector, "_obey", broken)
            served.do(lambda server: server.plant(node("host2")))
            await until("it says so", lambda: "nobody thought of this" in made.cluster.why)
            assert made.barrier.errors == 1
            monkeypatch.setattr(Reflector, "_obey", real)
            await until("it is back", lambda: not made.cluster.why)
            assert len(made.cluster._members.news.all) == 2

    run(scenario())


def test_without_descriptors_a_server_is_not_reached(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    async def scenario() -> None:
        async with client_of(served.access(tmp_path)) as client:
            with monkeypatch.context() as patch:
                patch.setattr("os.dup", full)
                with pytest.raises(UnreachableError, match="Too many open files"):
                    await client.list(LEASES)
            assert await client.list(LEASES) == []

    run(scenario())


@pytest.mark.usefixtures("brief")
def test_leases_are_never_listed_as_some_server_remembers_them(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        there(served)
        async with scene(served.url, tmp_path / "account", tmp_path) as made:
            await until("all Leases are known", lambda: made.last(Synced))
            served.do(lambda server: server.api.compact())
            served.do(lambda server: server.api.reset_watches())
            await until("they were listed again", lambda: len(lists(served, "leases")) == 2)
            assert not any("resourceVersion" in query for query in lists(served, "leases"))
            assert "resourceVersion=0" in lists(served, "nodes")[0]

    run(scenario())


def lists(served: Served, plural: str) -> list[str]:
    found = served.do(lambda server: server.journal.requests("list"))
    return [each.query for each in found if each.plural == plural]


# --- which cluster it is ---------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("before", [0, 77])
def test_what_cluster_it_is_may_be_refused(served: Served, tmp_path: Path, before: int) -> None:
    """It is said, and seldom asked again. The disk's word counts meanwhile, and the API's as soon as there is one."""

    async def scenario() -> None:
        there(served)
        served.do(lambda server: server.faults.plant("error", verbs=["get"], plurals=["namespaces"], code=403))
        async with scene(served.url, tmp_path / "account", tmp_path, before=before) as made:
            began = asyncio.get_running_loop().time()
            await until("a warning says so", lambda: "which cluster this is" in " ".join(made.cluster.warnings), 3)
            if before:
                await until("the disk's word counts", lambda: made.last(Synced), 3)
                assert made.cluster.report.away == ""
            else:
                await until("the core knows", lambda: "which cluster" in getattr(made.last(Away), "why", ""), 5)
                assert "which cluster" in made.cluster.report.away
                assert made.last(Synced) is None
            await asyncio.sleep(began + 2.0 - asyncio.get_running_loop().time())
            assert asked(served) <= 4
            served.do(lambda server: server.faults.clear())
            await until("the API has said it", lambda: getattr(made.last(Synced), "cluster", before) != before)
            assert made.cluster.warnings == ()

    run(scenario())


def asked(served: Served) -> int:
    found = served.do(lambda server: server.journal.requests("get"))
    return len([each for each in found if each.plural == "namespaces"])


# --- blocks ----------------------------------------------------------------------------------------------------------
def test_whatever_becomes_of_a_wish_the_core_hears_it(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        barrier = Barrier(logging.getLogger("test"))
        async with client_of(served.access(tmp_path)) as client:
            mine = Blocks(client, IPv4Network("10.32.0.0/12"), 24, "host1", 7, lambda news: None, barrier)
            wish = CreateLease(1, 3)
            assert (await mine.carry_out(wish, "u")) == Settled(
                1, None, "the namespace weave-net-blocks is missing; apply the manifest again"
            )
            there(served)
            made = await mine.carry_out(wish, "u")
            assert isinstance(made.lease, Lease)
            served.do(end_namespace)
            assert (await mine.carry_out(wish._replace(place=4), "u")).why == (
                "the namespace weave-net-blocks is being deleted; apply the manifest again when it is gone"
            )
            for number in range(2):
                failed = await mine.carry_out(DeleteLease(number, -1 << 40, "uid"), "u")
                assert (failed.number, failed.lease) == (number, None)
                assert failed.why.startswith("a defect, see the log: ")
            assert barrier.errors == 2
            assert len(caplog.records) == 1

    run(scenario())


def end_namespace(server: Any) -> None:
    """It waits for a finalizer, as for the end of all that is in it."""
    metadata = {"name": blocks.NAMESPACE, "finalizers": ["kubernetes"]}
    server.plant({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    server.remove("v1", "Namespace", blocks.NAMESPACE)


# --- the host --------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("brief")
def test_a_network_that_somebody_takes_away_comes_again_but_not_to_a_node_that_leaves(
    served: Served, tmp_path: Path
) -> None:
    async def scenario() -> None:
        there(served)
        async with scene(served.url, tmp_path / "account", tmp_path) as made:
            await until("it is installed", made.network.exists)
            made.network.rename(made.network.with_suffix(".away"))
            await until("it is there again", made.network.exists, 3)
            await until("an Event says so", lambda: "NetworkFileRestored" in reasons(served), 3)
            assert made.repaired == [str(made.network)]
            made.unready = LEAVING
            made.network.unlink()
            await asyncio.sleep(0.5)
            assert not made.network.exists()
            made.unready = ""
            await until("it is there again", made.network.exists, 3)

    run(scenario())


@pytest.mark.usefixtures("brief")
def test_a_broken_plugin_of_the_host_is_left_out_until_it_is_mended(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "MENDED_SECONDS", 0.2)

    def chained(made: Scene) -> list[str]:
        return [plugin["type"] for plugin in json.loads(made.network.read_text())["plugins"]]

    async def scenario() -> None:
        there(served)
        (tmp_path / "bin").mkdir()
        portmap = tmp_path / "bin" / "portmap"
        portmap.write_text("#!/bin/sh\nexit 1\n")
        portmap.chmod(0o755)
        async with scene(served.url, tmp_path / "account", tmp_path) as made:
            await until("it is installed", made.network.exists)
            await until("a warning names it", lambda: "portmap is left out" in " ".join(made.cluster.warnings))
            assert chained(made) == ["tunrouter-cni"]
            assert len(made.cluster.report.lacks) == 1
            portmap.write_text('#!/bin/sh\necho \'{"supportedVersions": ["1.0.0"]}\'\n')
            await until("it is chained", lambda: "portmap" in chained(made), 3)
            await until("no warning is left", lambda: not made.cluster.warnings)
            assert made.repaired == []

    run(scenario())


def reasons(served: Served) -> list[str]:
    found: Callable[[Any], list[str]] = lambda server: [  # noqa: E731
        thing["reason"] for (kind, _, _), thing in server.store.objects.items() if kind.kind == "Event"
    ]
    return cast("list[str]", served.do(found))


# --- annotations -----------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("brief")
def test_an_annotation_that_is_no_address_is_named_and_not_followed(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        there(served)
        async with scene(served.url, tmp_path / "account", tmp_path) as made:
            await until("it is known", lambda: 1 in made.wishes)
            assert made.wishes[1] is None
            said = {cluster.CAN_REACH: "the gateway"}
            served.do(lambda server: server.plant(node("host1", annotations=said)))
            await until("a warning names it", lambda: "'the gateway'" in " ".join(made.cluster.warnings))
            assert made.wishes[1] is None
            said = {cluster.CAN_REACH: "192.0.2.254"}
            served.do(lambda server: server.plant(node("host1", annotations=said)))
            await until("it is followed", lambda: made.wishes[1] is not None)
            assert getattr(made.wishes[1], "can_reach", "") == "192.0.2.254"

    run(scenario())
