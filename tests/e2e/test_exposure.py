"""A host's own addresses in the pods' network: who reaches them, what they outlive, and what ends them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.test_blocks import announced, blocks, reachable
from tests.e2e.test_mesh import snapshot
from tunrouter.bench.capture import Capture
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.libcni import Runtime
from tunrouter.bench.namespaces import stop, wait_until
from tunrouter.edge.api import Lease, ReserveCall
from tunrouter.edge.api.client import Client
from tunrouter.errors import AgentError

pytestmark = pytest.mark.root

ASKED = "10.32.1.77"


def expose(host: Host, *addresses: str) -> list[str]:
    return host.agent.command("expose", *addresses).stdout.splitlines()


def refused(host: Host, *arguments: str) -> str:
    done = host.agent.command(*arguments, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def on_bridge(host: Host) -> list[str]:
    said = host.namespace.run("ip", "-o", "-4", "address", "show", "dev", "weave", check=False).stdout
    return sorted(re.findall(r"inet (\S+)", said))


def held(host: Host) -> list[str]:
    """What `ps` says is this host's."""
    return [line.split()[2] for line in host.agent.command("ps").stdout.splitlines() if line.startswith("weave:expose")]


def pings(host: Host, address: str, *options: str) -> bool:
    done = host.namespace.run("ping", "-n", "-c1", "-W3", *options, address, check=False)
    return done.returncode == 0


def watches(host: Host, path: Path) -> bool:
    for verb in ("add", "del"):
        host.namespace.ip(f"address {verb} 198.51.100.1/32 dev lo")
    return "198.51.100.1" in path.read_text()


@contextmanager
def watched(lab: Lab, host: Host) -> Iterator[Path]:
    """All that happens to the host's addresses, in a file."""
    path = lab.directory / "addresses"
    with path.open("wb") as file:
        monitor = host.namespace.spawn("ip", "-o", "monitor", "address", stdout=file)
    try:
        wait_until("it watches", lambda: watches(host, path), 5)
        yield path
        host.namespace.ip("address add 198.51.100.2/32 dev lo")
        wait_until("it has seen all", lambda: "198.51.100.2" in path.read_text(), 5)
    finally:
        stop(monitor)


@pytest.fixture(params=[False, True], ids=["isolated", "hairpin"])
def lab(request: pytest.FixtureRequest, secret: str) -> Iterator[Lab]:
    """Two hosts with a pod each; bridged frames pass iptables on both, or not."""
    with Lab(hosts=2, offloads="off") as lab:
        for host in lab.hosts:
            host.filter_bridged(request.param)
        lab.start_agents(password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        yield lab


def test_what_is_exposed_is_reached_from_everywhere_and_may_speak(lab: Lab) -> None:
    one, two = lab.hosts
    near, far = (host.pods[0] for host in lab.hosts)
    (chosen,) = expose(one)
    assert expose(one) == [chosen]
    assert expose(one, ASKED, chosen) == [ASKED, chosen]
    assert held(one) == [f"{chosen}/32", f"{ASKED}/32"]
    assert on_bridge(one) == sorted(["10.32.1.1/32", f"{chosen}/32", f"{ASKED}/32"])
    for address in (chosen, ASKED):
        assert near.ping(address, count=2)
        assert far.ping(address, count=2)
        assert pings(one, address)
        assert pings(two, address)
        for pod in (near, far):
            with Capture(pod.namespace, lab.directory / f"{pod.host.name}-{address}") as capture:
                assert pings(one, pod.address, "-I", address)
                assert capture.wait_for(1, f"icmp and src {address} and dst {pod.address}")
    with Capture(near.namespace, lab.directory / "plain") as capture:
        assert pings(one, near.address)
        assert capture.wait_for(1, "icmp and src 10.32.1.1"), "the bridge's address speaks for the host as before"
    assert "weave:expose" in two.agent.command("whois", ASKED).stdout


def test_what_cannot_be_is_refused_and_leaves_nothing(pair: Lab) -> None:
    host, pod = pair.hosts[0], pair.hosts[0].pods[0]
    for address, words in (
        ("10.32.1.0", "it is the network's own, the broadcast address, or a gateway; choose another"),
        ("10.32.1.1", "it is the network's own, the broadcast address, or a gateway; choose another"),
        ("10.32.1.255", "it is the network's own, the broadcast address, or a gateway; choose another"),
        ("10.32.2.7", "it is in no block of this node; choose one of 10.32.1.0/24, or none"),
        ("192.0.2.9", "it is in no block of this node; choose one of 10.32.1.0/24, or none"),
        (pod.address, f"another interface holds it ({pod.namespace.path})"),
    ):
        assert words in refused(host, "expose", ASKED, address)
        assert (held(host), on_bridge(host)) == ([], ["10.32.1.1/32"]), "all or nothing"
    expose(host, ASKED)
    other = host.make_namespace("b")
    assert f"{ASKED}: another interface holds it (weave:expose)" in refused(
        host, "attach", str(other.namespace.path), "--ip", ASKED
    )
    host.agent.command("hide")
    assert expose(host, ASKED) == [ASKED], "it rests for strangers"


def test_no_pod_gets_it_and_no_runtime_takes_it(secret: str) -> None:
    with Lab(hosts=1, offloads="off") as lab:
        (host,) = lab.hosts
        host.agent.block = "10.32.1.0/29"
        lab.start_agents(password=secret)
        given = set(expose(host)) | {host.add_pod(name).address for name in "abcd"}
        assert given == {f"10.32.1.{number}" for number in range(2, 7)}
        before = held(host)
        Runtime(host).collect()
        Runtime(host, network="weave").delete("expose", None, "auto")
        done = host.agent.command("detach", "weave:expose", "--interface", "auto", check=False)
        assert "weave:expose is this host itself" in done.stderr
        assert held(host) == before


def test_it_outlives_the_agent_the_devices_and_everybody_elses_pods(pair: Lab) -> None:
    host, other = pair.hosts
    expose(host, ASKED)
    (chosen,) = expose(host)
    wanted = sorted(["10.32.1.1/32", f"{chosen}/32", f"{ASKED}/32"])
    with watched(pair, host) as changes:
        host.agent.kill()
        assert on_bridge(host) == wanted
        assert host.pods[0].ping(ASKED)
        host.agent.restart()
        wait_until("it is reached again", lambda: other.pods[0].ping(ASKED, seconds=0.5), 10)
        assert on_bridge(host) == wanted
        assert held(host) == [f"{chosen}/32", f"{ASKED}/32"]
        host.agent.stop()
        host.agent.restart()
    assert not re.findall(rf"Deleted.*(?:{ASKED}|{chosen})", changes.read_text()), "not for a moment"

    host.agent.stop()  # and now as after a boot of the machine
    for device in ("weave", "tunrouter0"):
        host.namespace.ip(f"link delete {device}")
    host.agent.restart()
    assert on_bridge(host) == wanted
    assert expose(host) == [chosen], "the same one, for good"
    wait_until("it is reached again", lambda: other.pods[0].ping(ASKED, seconds=0.5), 10)
    assert pings(host, other.pods[0].address, "-I", ASKED)

    host.namespace.ip("address flush dev weave")
    wait_until("it is put back", lambda: on_bridge(host) == wanted, 3)


def test_what_is_hidden_is_gone_for_good(pair: Lab) -> None:
    host, other = pair.hosts
    expose(host, ASKED)
    (chosen,) = expose(host)
    for arguments, left in (((ASKED,), [chosen]), ((ASKED,), [chosen]), ((), []), ((), []), (("192.0.2.9",), [])):
        done = host.agent.command("hide", *arguments)
        assert (done.stdout, done.stderr) == ("", "")
        assert held(host) == [f"{address}/32" for address in left]
        assert on_bridge(host) == sorted(["10.32.1.1/32", *held(host)])
    assert not other.pods[0].ping(ASKED, seconds=1)
    host.agent.kill()
    host.agent.restart()
    assert (held(host), on_bridge(host)) == ([], ["10.32.1.1/32"])


def test_reset_ends_it(pair: Lab) -> None:
    host = pair.hosts[0]
    expose(host, ASKED)
    said = host.agent.command("reset", "--force").stdout
    assert f"exposed address {ASKED}" in said
    host.agent.process.wait(timeout=10)
    host.agent.restart()
    assert (held(host), on_bridge(host)) == ([], ["10.32.1.1/32"])
    assert expose(host, ASKED) == [ASKED]


@pytest.fixture
def small(secret: str) -> Iterator[Lab]:
    """Two hosts that share four blocks; the first decides."""
    with Lab(hosts=2, offloads="off") as lab:
        first, second = lab.hosts
        size = ("--range", "10.32.0.0/24", "--block-size", "26")
        for host in lab.hosts:
            host.agent.block = ""
        first.agent.start(*size, password=secret)
        second.agent.start(first.address, *size, password=secret)
        wait_until("both have a block", lambda: blocks(first) and blocks(second), 15)
        yield lab


def test_who_leaves_hides_it(small: Lab) -> None:
    _, host = small.hosts
    (address,) = expose(host)
    assert "1 addresses are in use on this node" in refused(host, "leave")
    assert held(host) == [f"{address}/32"]
    assert "64 IPs in 1 block handed back" in host.agent.command("leave", "--force").stdout
    assert f"{address}/32" not in on_bridge(host)
    host.agent.process.wait(timeout=10)
    assert "was exposed, and is not now" not in host.agent.log.read_text(), "it was meant so"
    host.agent.restart()
    wait_until("it has a block again", lambda: blocks(host), 15)
    assert held(host) == []
    assert f"{address}/32" not in on_bridge(host)


@pytest.mark.timeout(180)
def test_with_its_block_it_is_lost_and_the_user_is_told(small: Lab) -> None:
    first, victim = small.hosts
    (address,) = expose(victim)
    old = blocks(victim)
    victim.agent.kill()
    wait_until("it is missed", lambda: victim.agent.name not in reachable(first), 15)
    first.agent.command("rmpeer", victim.agent.name)
    wait_until("it is forgotten", lambda: old.isdisjoint(announced(first)), 10)
    taker = Client(first.agent.directory / "run" / "tunrouter.sock")
    for number in range(200):
        if old <= blocks(first):
            break
        with suppress(AgentError):  # what another node had rests, so the one that waits for it waits in vain
            taker.ask(ReserveCall(f"c{number}"), Lease)
    assert old <= blocks(first)
    assert f"{address}/32" in on_bridge(victim), "nobody is there to take it off"

    victim.agent.restart(wait=False)
    wait_until("it is taken off", lambda: f"{address}/32" not in on_bridge(victim), 15)
    wait_until("and named", lambda: warnings(victim), 5)
    (warning,) = warnings(victim)
    assert f"{address} was exposed, and is not now: its block is not this node's any more" in warning
    assert warning in victim.agent.log.read_text()
    assert held(victim) == []
    victim.agent.command("hide", address)
    assert not warnings(victim)


def warnings(host: Host) -> tuple[str, ...]:
    found = snapshot(host)
    return found.warnings if found is not None else ()
