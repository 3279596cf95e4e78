"""Pods of a runtime: every verb on real agents and namespaces, and what happens when the agent is not there."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.libcni import PluginError, Runtime
from tunrouter.bench.namespaces import Namespace, wait_until

pytestmark = pytest.mark.root


@contextmanager
def namespaces(host: Host, count: int) -> Iterator[list[Namespace]]:
    made = [Namespace(f"{host.namespace.name}-c{number}") for number in range(count)]
    try:
        for namespace in made:
            namespace.create()
        yield made
    finally:
        for namespace in made:
            namespace.delete()


@pytest.fixture
def lab(secret: str) -> Iterator[Lab]:
    with Lab(hosts=2, offloads="off") as lab:
        lab.start_agents(password=secret)
        yield lab


@pytest.fixture
def host(secret: str) -> Iterator[Host]:
    with Lab(hosts=1, offloads="off") as lab:
        lab.start_agents(password=secret)
        yield lab.hosts[0]


@pytest.fixture
def roomy(secret: str) -> Iterator[Host]:
    """A host whose node gets as many blocks as it needs."""
    with Lab(hosts=1, offloads="off") as lab:
        (host,) = lab.hosts
        host.agent.block = ""
        lab.start_agents(password=secret)
        yield host


def address(result: dict[str, list[dict[str, str]]]) -> str:
    return result["ips"][0]["address"].partition("/")[0]


def ports(host: Host) -> list[str]:
    return [line for line in host.namespace.run("ip", "-o", "link").stdout.splitlines() if "vethwe" in line]


def descriptors(host: Host) -> int:
    return len(os.listdir(f"/proc/{host.agent.process.pid}/fd"))


def held(host: Host) -> list[str]:
    """Containers that have an address, as `ps` shows them."""
    return [line.split()[0] for line in host.agent.command("ps", "-o", "wide").stdout.splitlines()]


def refused(code: int, work: Callable[[], object]) -> str:
    with pytest.raises(PluginError) as caught:
        work()
    assert caught.value.code == code, caught.value.said
    return str(caught.value.said["msg"])


def test_pods_of_two_hosts_reach_each_other(lab: Lab) -> None:
    one, two = lab.hosts
    with namespaces(one, 2) as (a, b), namespaces(two, 1) as (c,):
        near, same = Runtime(one).add("a", a), Runtime(one).add("b", b)
        far = Runtime(two).add("c", c)
        for sender, receiver in ((a, same), (a, far), (b, near), (c, near)):
            assert "0% packet loss" in sender.run("ping", "-c1", "-W3", address(receiver)).stdout


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_pod_through_all_its_verbs(host: Host, version: str) -> None:
    runtime = Runtime(host, version=version)
    with namespaces(host, 1) as (pod,):
        result = runtime.add("abc", pod)
        assert result["cniVersion"] == version
        assert result["ips"][0]["address"] == "10.32.1.2/32"
        assert ("mtu" in result["interfaces"][-1]) == (version == "1.1.0")
        inside = pod.run("ip", "-o", "link", "show", "eth0").stdout
        assert result["interfaces"][-1]["mac"] in inside
        outside = host.namespace.run("ip", "-o", "link", "show", result["interfaces"][1]["name"]).stdout
        assert result["interfaces"][1]["mac"] in outside
        if version != "0.3.1":
            runtime.check("abc", pod, result)
        assert held(host) == ["pods/abc"]
        runtime.delete("abc", pod, result=result)
        runtime.delete("abc", None, result=result)
        assert held(host) == []
        assert ports(host) == []
        assert "eth0" not in pod.run("ip", "-o", "link").stdout


def test_a_pod_is_as_it_was_wished_for(host: Host) -> None:
    with namespaces(host, 1) as (pod,):
        wishes: dict[str, Any] = {
            "mtu": 1300,
            "ipam": {"routes": [{"dst": "192.0.2.0/24"}], "subnet": "10.32.0.0/12"},
            "dns": {"nameservers": ["192.0.2.53"]},
            "runtimeConfig": {"ips": ["10.32.1.77/12"]},
        }
        result = Runtime(host).add("abc", pod, **wishes)
        assert result["ips"][0]["address"] == "10.32.1.77/32"
        assert result["dns"] == {"nameservers": ["192.0.2.53"]}
        assert [route["dst"] for route in result["routes"]] == ["10.32.0.0/12", "192.0.2.0/24"]
        routes = pod.run("ip", "route").stdout
        assert "default" not in routes
        assert "192.0.2.0/24 via 10.32.1.1" in routes
        assert "mtu 1300" in pod.run("ip", "link", "show", "eth0").stdout
        Runtime(host).check("abc", pod, result)


def test_check_names_what_has_changed(host: Host) -> None:
    runtime = Runtime(host)
    with namespaces(host, 2) as (pod, other):
        result = runtime.add("abc", pod)
        refused(3, lambda: runtime.check("other", pod, result))
        refused(3, lambda: runtime.check("abc", other, result))
        for words, command in (
            ("the route to 0.0.0.0/0 is gone", "route del default"),
            ("has not the address", "addr flush dev eth0"),
            ("is down", "link set eth0 down"),
            ("has another MAC", "link set eth0 address 02:00:00:00:00:01"),
        ):
            pod.ip(command)
            assert words in refused(100, partial(runtime.check, "abc", pod, result))
            runtime.delete("abc", pod)
            result = runtime.add("abc", pod)
            runtime.check("abc", pod, result)


def test_an_interface_that_is_there_is_not_added_again(host: Host) -> None:
    runtime = Runtime(host)
    with namespaces(host, 1) as (pod,):
        result = runtime.add("abc", pod)
        assert "eth0 is there already, with the address 10.32.1.2" in refused(101, lambda: runtime.add("abc", pod))
        refused(101, lambda: runtime.add("other", pod))
        second = runtime.add("abc", pod, "net1")
        assert second["ips"][0]["address"] != result["ips"][0]["address"]
        runtime.check("abc", pod, result)
        runtime.delete("other", pod)
        runtime.check("abc", pod, result)
        runtime.delete("abc", pod)
        assert held(host) == ["pods/abc"], "net1 is there still"


def test_what_is_no_containers_namespace_is_refused(host: Host) -> None:
    runtime = Runtime(host)
    assert "CNI_NETNS" in refused(4, lambda: runtime.add("abc", Namespace("no-such-namespace")))
    assert "this host's own" in refused(4, lambda: runtime.add("abc", host.namespace))
    assert held(host) == []


def test_collecting_takes_who_is_not_named_and_nobody_elses(host: Host) -> None:
    ours, others = Runtime(host), Runtime(host, network="others")
    by_hand = host.add_pod("by-hand")
    with namespaces(host, 3) as (a, b, c):
        ours.add("a", a)
        ours.add("a", a, "net1")
        ours.add("b", b)
        others.add("b", c)
        ours.collect(("a", "eth0"), ("gone", "eth0"))
        assert len(ports(host)) == 3
        assert {name for name in held(host) if name.startswith(("pods/", "others/"))} == {"pods/a", "others/b"}
        ours.collect()
        others.collect()
        assert len(ports(host)) == 1
    assert by_hand.address in host.agent.command("ps").stdout


def test_while_the_agent_is_away_pods_go_and_none_come(host: Host) -> None:
    runtime = Runtime(host)
    with namespaces(host, 2) as (pod, late):
        runtime.add("abc", pod)
        host.agent.kill()
        refused(50, runtime.status)
        began = time.monotonic()
        assert "no agent answers" in refused(11, lambda: runtime.add("late", late))
        assert time.monotonic() - began < 12, "it waits ten seconds for one that is being replaced"
        runtime.delete("abc", pod)
        runtime.delete("abc", pod)
        runtime.delete("never-was", None)
        assert len(list(runtime.notes.iterdir())) == 2
        host.agent.restart()
        wait_until("the notes are worked off", lambda: not list(runtime.notes.iterdir()), 5)
        assert held(host) == []
        assert ports(host) == []
        runtime.status()


def test_a_pod_that_comes_again_is_not_taken_off_by_its_old_note(host: Host) -> None:
    runtime = Runtime(host)
    with namespaces(host, 1) as (pod,):
        host.agent.kill()
        runtime.delete("abc", pod)
        host.agent.restart(wait=False)
        result = wait_until("it is added", lambda: attempt(lambda: runtime.add("abc", pod)), 10)
        wait_until("the notes are worked off", lambda: not list(runtime.notes.iterdir()), 5)
        runtime.check("abc", pod, result)


def attempt(work: Callable[[], dict[str, object]]) -> dict[str, object] | None:
    try:
        return work()
    except PluginError as error:
        if error.code != 11:
            raise
        return None


def test_a_network_of_others_that_comes_first_keeps_status_red(host: Host) -> None:
    directories = host.agent.directory / "bin", host.agent.directory / "net.d"
    options = ("--cni-bin-dir", str(directories[0]), "--cni-conf-dir", str(directories[1]))
    host.agent.stop()
    host.agent.start(*options)
    runtime = Runtime(host)
    assert "tunrouter-cni (compiled)" in host.agent.command("cni", "install", *options).stdout
    runtime.status()
    foreign = directories[1] / "00-foreign.conflist"
    foreign.write_text("{}")
    assert "00-foreign.conflist comes before" in refused(50, runtime.status)
    assert "00-foreign.conflist comes before" in host.agent.command("status", check=False).stdout
    said = host.agent.command("cni", "install", "--cni-exclusive", "-o", "json", *options).stdout
    assert json.loads(said)["compiled"]
    runtime.status()
    host.agent.command("cni", "uninstall", *options)
    assert foreign.exists()


def test_many_at_once_then_none(host: Host) -> None:
    many(host, pods=60, at_once=16)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_thousand_pods_64_at_once_then_none(roomy: Host) -> None:
    many(roomy, pods=1000, at_once=64)


def many(host: Host, *, pods: int, at_once: int) -> None:
    """No error, no address twice, nothing left."""
    runtime = Runtime(host)

    def timed(work: Callable[[], object]) -> float:
        began = time.monotonic()
        work()
        return time.monotonic() - began

    with namespaces(host, pods) as made, ThreadPoolExecutor(at_once) as pool:
        before = descriptors(host)
        results: dict[str, str] = {}

        def add(number: int) -> None:
            results[f"c{number}"] = address(runtime.add(f"c{number}", made[number]))

        times = sorted(pool.map(lambda number: timed(lambda: add(number)), range(pods)))
        assert len(set(results.values())) == pods
        assert times[int(pods * 0.99) - 1] <= 2.0, times[-5:]
        assert len(ports(host)) == pods
        gone = sorted(pool.map(lambda number: timed(lambda: runtime.delete(f"c{number}", made[number])), range(pods)))
        assert gone[int(pods * 0.99) - 1] <= 2.0, gone[-5:]
    assert ports(host) == []
    assert held(host) == []
    assert "vethwe" not in host.namespace.run("nft", "list", "set", "bridge", "tunrouter", "pods").stdout
    wait_until("no descriptor is left", lambda: descriptors(host) <= before + 2, 5)


def test_killed_while_pods_come_and_go(host: Host) -> None:
    churn(host, kills=5, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_a_hundred_times_while_pods_come_and_go(host: Host) -> None:
    churn(host, kills=100, seed=2)


def churn(host: Host, *, kills: int, seed: int) -> None:
    """The agent dies again and again; no address is given twice, and after a last round nothing is left."""
    runtime, rng = Runtime(host), random.Random(seed)
    with namespaces(host, 6) as made, ThreadPoolExecutor(6) as pool:
        stop = False

        def live(number: int) -> None:
            container = f"c{number}"
            while not stop:
                try:
                    mine = address(runtime.add(container, made[number]))
                    answers = made[number].run("ip", "-o", "-4", "addr", "show", "eth0").stdout
                    assert mine in answers
                except PluginError as error:
                    if error.code != 11:
                        raise
                runtime.delete(container, made[number])

        lives = [pool.submit(live, number) for number in range(len(made))]
        for _ in range(kills):
            time.sleep(rng.uniform(0.2, 1.5))
            host.agent.kill()
            host.agent.restart()
        stop = True
        for one in lives:
            one.result(60)
        runtime.collect()
        wait_until("the notes are worked off", lambda: not list(runtime.notes.glob("*")), 10)
        assert held(host) == []
        assert ports(host) == []
