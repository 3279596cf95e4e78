"""A machine that was booted, as far as one can be in a namespace: real agents whose kernel has forgotten everything."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network

import pytest

from tunrouter.bench.lab import Host, Lab, Pod
from tunrouter.bench.libcni import Runtime
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.api import AttachCall, Attachment, DetachCall, ExposeCall, Exposed, Leases, PsCall
from tunrouter.edge.api.client import Client

pytestmark = pytest.mark.root

POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}"
"""As kubelet's runtimes say whose sandbox it is."""


@pytest.fixture(scope="module")
def host(secret: str) -> Iterator[Host]:
    with Lab(hosts=1, offloads="off") as lab:
        (host,) = lab.hosts
        host.agent.block = ""
        lab.start_agents(password=secret)
        yield host


def boot(host: Host) -> None:
    """Agent, namespaces, devices and rules are gone without a word, and only the disk is as it was."""
    host.agent.kill()
    for pod in host.pods:
        pod.namespace.delete()
        pod.namespace.create()
    for device in ("weave", "tunrouter0"):
        host.namespace.run("ip", "link", "del", device)
    host.namespace.run("nft", "flush", "ruleset")
    host.agent.restart(wait=False)
    host.agent.wait_ready()


def block(host: Host) -> IPv4Network:
    wait_until("it has a block", lambda: host.agent.snapshot().block, 10)
    return IPv4Network(host.agent.snapshot().block)


def cni(host: Host, container: str, arguments: str = "IgnoreUnknown=1") -> Callable[[Pod], str]:
    def add(pod: Pod) -> str:
        runtime = Runtime(host)
        runtime.arguments = arguments
        return str(runtime.add(container, pod.namespace)["ips"][0]["address"].partition("/")[0])

    return add


def attached(host: Host, wish: str | None = None) -> Callable[[Pod], str]:
    def attach(pod: Pod) -> str:
        call = AttachCall(str(pod.namespace.path), pod.name, wish)
        return agent(host).ask(call, Attachment).address.partition("/")[0]

    return attach


def agent(host: Host) -> Client:
    return Client(host.agent.directory / "run" / "tunrouter.sock")


def test_whoever_comes_again_after_a_boot_has_the_address_that_it_had(host: Host) -> None:
    ways = {
        "a": attached(host),
        "b": attached(host),
        "wish": attached(host, str(block(host)[99])),
        "c": cni(host, "c"),
        "web": cni(host, "sandbox-1", POD.format("web")),
    }
    pods = {name: host.make_namespace(name) for name in ways}
    had = {name: way(pods[name]) for name, way in ways.items()}
    (exposed,) = agent(host).ask(ExposeCall(), Exposed).addresses
    boot(host)
    ways["web"] = cni(host, "sandbox-2", POD.format("web"))
    strangers = {f"s{number}": attached(host) for number in range(3)}
    strangers["t"] = cni(host, "stranger", POD.format("web-2"))
    everybody = strangers | ways
    fresh = pods | {one: host.make_namespace(one) for one in strangers}
    with ThreadPoolExecutor(len(everybody)) as pool:
        coming = {one: pool.submit(way, fresh[one]) for one, way in everybody.items()}
        given = {one: work.result() for one, work in coming.items()}
    assert {one: given[one] for one in had} == had
    assert len({*given.values(), exposed}) == len(given) + 1, "no address twice"
    assert agent(host).ask(ExposeCall(), Exposed).addresses == (exposed,)
    leases = agent(host).ask(PsCall(), Leases).leases
    assert sorted(lease.address for lease in leases) == sorted({*given.values(), exposed}), "who is gone has none"
    assert "no block of addresses" not in host.agent.log.read_text().partition("ready: pods of")[2]


def test_a_pod_that_is_made_anew_has_the_address_of_its_predecessor_and_not_of_one_that_lives(host: Host) -> None:
    """A pod of a StatefulSet, and a container that its operator replaces."""
    one, two, three = (host.make_namespace(name) for name in ("one", "two", "three"))
    first = cni(host, "sandbox-1", POD.format("web-0"))(one)
    assert cni(host, "sandbox-2", POD.format("web-0"))(two) != first
    Runtime(host).delete("sandbox-1", one.namespace)
    assert cni(host, "sandbox-3", POD.format("web-0"))(three) == first
    address = attached(host)(one)
    agent(host).ask(DetachCall(str(one.namespace.path), one.name), object)
    assert attached(host, address)(host.make_namespace("other")) == address, "who asks for exactly it need not wait"


def test_local_traffic_does_not_notice_that_the_agent_starts_again(host: Host) -> None:
    """Killed, and started with nothing but its disk to tell it which blocks it has."""
    a, b = host.add_pod("here"), host.add_pod("there")
    pinging = a.namespace.spawn("ping", "-qn", "-i", "0.01", b.address, stdout=subprocess.PIPE)
    try:
        host.agent.kill()
        host.agent.restart()
        wait_until("it has its block", lambda: host.agent.snapshot().block, 10)
    finally:
        pinging.send_signal(signal.SIGINT)
        said = pinging.communicate(timeout=10)[0].decode()
    counted = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert counted is not None
    assert int(counted[1]) > 50
    assert int(counted[1]) - int(counted[2]) <= 1, "the last one may be under way"
