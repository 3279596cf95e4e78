"""A real agent of a cluster and somebody in the place of weave-npc: ADD, DEL, both their restarts, and what is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from tests.agent.standin import Npc
from tests.edge.serving import serving
from tests.kube.scene import Scene, conflist, npc_socket, scene
from tunrouter.bench.lab import Host
from tunrouter.bench.libcni import PluginError, Runtime
from tunrouter.bench.namespaces import Namespace
from tunrouter.edge.api.server import POLICING
from tunrouter.errors import AgentError

pytestmark = pytest.mark.root

TABLE = "add table inet tunrouter-policy; add chain inet tunrouter-policy forward"


@pytest.fixture(scope="module")
def up() -> Iterator[Scene]:
    with scene(1) as made:
        made.lab.hosts[0].namespace.run("nft", TABLE)
        made.start(*made.lab.hosts, expect_npc=True)
        made.wait("it is ready", partial(made.ready, made.lab.hosts[0]))
        yield made


@pytest.fixture
def host(up: Scene) -> Host:
    return up.lab.hosts[0]


@contextmanager
def answering(host: Host) -> Iterator[Npc]:
    npc = Npc()
    with serving(npc_socket(host), npc, language=POLICING):
        yield npc


@contextmanager
def sandbox(host: Host, name: str) -> Iterator[Namespace]:
    made = Namespace(f"{host.namespace.name}-{name}")
    made.create()
    try:
        yield made
    finally:
        made.delete()


def runtime(host: Host, pod: str = "web-0") -> Runtime:
    made = Runtime(host, network="weave")
    made.arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod};K8S_POD_UID=uid-of-{pod}"
    return made


def left(host: Host) -> list[str]:
    """Ports of pods, and addresses that are held."""
    links = host.namespace.run("ip", "-o", "link").stdout.splitlines()
    held = host.agent.command("ps", "-o", "wide").stdout.splitlines()
    return [line for line in links if "vethwe" in line] + held


def told(npc: Npc) -> set[tuple[str, bool, str, str, str]]:
    return {(one.name, one.cni, one.namespace, one.pod, one.uid) for one in npc.last.values()}


def test_a_pod_is_asked_for_and_told_of_until_it_is_gone(up: Scene, host: Host) -> None:
    with answering(host) as npc, sandbox(host, "a") as pod:
        result = runtime(host).add("abc", pod)
        address = result["ips"][0]["address"].partition("/")[0]
        (asked,) = npc.asked
        assert asked.container.address == address
        assert told_of(asked.container) == ("weave/abc", True, "shop", "web-0", "uid-of-web-0")
        up.wait("the list has it", lambda: told(npc) == {told_of(asked.container)}, 1)
        assert "Policy: in force by weave-npc" in host.agent.command("status").stdout
        runtime(host).delete("abc", pod)
        up.wait("the list has it no more", lambda: npc.lists[-1] == (), 1)


def told_of(one: object) -> tuple[str, bool, str, str, str]:
    return one.name, one.cni, one.namespace, one.pod, one.uid  # type: ignore[attr-defined]


def test_without_an_answer_an_add_fails_in_time_and_leaves_nothing(host: Host) -> None:
    with sandbox(host, "a") as pod:
        began = time.monotonic()
        with pytest.raises(PluginError) as caught:
            runtime(host).add("abc", pod)
        assert 4 < time.monotonic() - began < 7
        assert caught.value.code == 11
        assert caught.value.said["msg"] == f"weave-npc does not answer on {npc_socket(host)}"
        assert caught.value.said["details"] == (
            "see: kubectl logs -n kube-system $(kubectl get pods -n kube-system -l name=weave-net "
            "--field-selector spec.nodeName=host1 -o name) -c weave-npc"
        )
        assert left(host) == []
        assert "eth0" not in pod.run("ip", "-o", "link").stdout
        assert "weave-npc does not answer since" in host.agent.command("status").stdout


def test_a_refusal_is_the_adds_own_and_the_next_try_has_the_same_address(host: Host) -> None:
    with answering(host) as npc, sandbox(host, "a") as pod:
        npc.refusal = AgentError("the pod shop/web-0 is not known to the API yet", "look at its events")
        with pytest.raises(PluginError) as caught:
            runtime(host).add("first", pod)
        assert (caught.value.code, caught.value.said["msg"]) == (11, npc.refusal.what)
        assert caught.value.said["details"] == "look at its events"
        assert left(host) == []
        npc.refusal = None
        result = runtime(host).add("second", pod)
        assert result["ips"][0]["address"] == f"{npc.asked[0].container.address}/32"
        runtime(host).delete("second", pod)


def test_an_add_waits_for_one_that_is_being_started_again(host: Host) -> None:
    with sandbox(host, "a") as pod, ThreadPoolExecutor(1) as threads:
        adding = threads.submit(runtime(host).add, "abc", pod)
        with pytest.raises(TimeoutError):
            adding.result(1.5)
        with answering(host) as npc:
            began = time.monotonic()
            assert adding.result(5)["ips"]
            assert time.monotonic() - began < 2
            assert npc.asked[0].container.pod == "web-0"
            runtime(host).delete("abc", pod)


def test_who_is_no_pod_of_kubernetes_does_not_wait(up: Scene, host: Host) -> None:
    with sandbox(host, "a") as pod:
        began = time.monotonic()
        Runtime(host, network="podman").add("abc", pod)
        assert time.monotonic() - began < 3
        with answering(host) as npc:
            up.wait("it is told", lambda: told(npc) == {("podman/abc", False, "", "", "")}, 3)
        Runtime(host, network="podman").delete("abc", pod)


def test_an_agent_that_was_started_again_knows_whose_its_containers_are(up: Scene, host: Host) -> None:
    with answering(host) as npc, sandbox(host, "a") as pod, sandbox(host, "b") as other:
        runtime(host).add("abc", pod)
        runtime(host, "web-1").add("def", other)
        up.wait("both are told", lambda: len(npc.last) == 2, 2)
        host.agent.kill()
        npc.lists.clear()
        host.agent.restart()
        host.agent.wait_ready()
        up.wait("it tells again", lambda: npc.lists, 5)
        # From the first word on: who is told without his name is closed.
        assert {tuple(sorted((one.pod, one.uid) for one in each)) for each in npc.lists} == {
            (("web-0", ""), ("web-1", ""))
        }
        runtime(host).delete("abc", pod)
        runtime(host, "web-1").delete("def", other)


def test_silence_keeps_the_agent_ready_and_its_network_in_place(up: Scene, host: Host) -> None:
    up.wait("it is silent", lambda: "weave-npc does not answer since" in host.agent.command("status").stdout)
    assert up.ready(host)
    (host.agent.directory / "net.d" / "05-tunrouter.conflist").unlink()
    up.wait("the network is put back", partial(conflist, host), 5)
    assert "tunrouter-policy" in host.namespace.run("nft", "list", "tables").stdout, "and so are the rules"


def test_where_none_is_expected_what_an_earlier_one_left_is_removed_and_said() -> None:
    with scene(1) as made:
        (host,) = made.lab.hosts
        host.namespace.run("nft", TABLE)
        made.start(host)
        made.wait("it is ready", partial(made.ready, host))
        assert "tunrouter-policy" not in host.namespace.run("nft", "list", "tables").stdout
        assert "removed the table inet tunrouter-policy: an earlier weave-npc made it" in host.agent.log.read_text()
        with sandbox(host, "a") as pod:
            runtime(host).add("abc", pod)
            assert "Policy: not by tunrouter" in host.agent.command("status").stdout
            runtime(host).delete("abc", pod)
