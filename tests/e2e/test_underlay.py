"""Which card and address the tunnel uses, on hosts with two: the right one, its MTU, its change, and its absence."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal

import pytest

from tests.e2e.test_faults import RATE, Once, stream_through
from tests.e2e.test_healing import Pings
from tunrouter.bench.fabric import BRIDGE, default_route
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until

pytestmark = pytest.mark.root

BACK_SECONDS = 5.0
SECOND = "second"
FAR = "203.0.113.2"
"""An address of the second host that both of its cards lead to."""


def bound(host: Host) -> set[str]:
    """The addresses of the tunnel's sockets."""
    said = host.namespace.run("ss", "-Hlun", "sport = :6783").stdout
    return set(re.findall(r"(\S+):6783\b", said))


def plug_second(lab: Lab, host: Host, mtu: int) -> None:
    """Another card, on a wire of its own."""
    port = f"{host.name}b"
    lab.fabric.namespace.ip(
        f"link add {port} mtu {mtu} type veth peer name eth1 mtu {mtu} netns {host.namespace.name}",
        f"link set {port} master {SECOND} addrgenmode none up",
    )
    host.namespace.ip("link set eth1 addrgenmode none up", f"address add 198.51.100.{host.number}/24 dev eth1")


@pytest.fixture
def crossed(secret: str) -> Iterator[Lab]:
    """The first host's routes lead to the second by the wrong card, from which that takes nothing."""
    with Lab(hosts=2, offloads="off", mtu=9000) as lab:
        lab.fabric.namespace.ip(f"link add {SECOND} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                                f"link set {SECOND} mtu 1400 addrgenmode none up")  # fmt: skip
        one, two = lab.hosts
        for host in lab.hosts:
            plug_second(lab, host, 1400)
        two.namespace.ip(f"address add {FAR}/32 dev eth1")
        one.namespace.ip(
            f"route add {FAR}/32 via {two.address}",
            "rule add from 198.51.100.1 lookup 100",
            "route add default via 198.51.100.2 table 100",
        )
        two.namespace.run("nft", "add table inet wall")
        two.namespace.run("nft", "add chain inet wall in { type filter hook input priority 0; }")
        two.namespace.run("nft", "add rule inet wall in udp dport 6783 ip saddr != 198.51.100.1 counter drop")
        two.agent.start("--iface", FAR, password=secret)
        assert two.agent.snapshot().endpoints == (f"{FAR}:6783",), "before anybody has seen it"
        yield lab


def dropped(host: Host) -> int:
    """Packets of the tunnel that came from the wrong address."""
    found = re.search(r"packets (\d+)", host.namespace.run("nft", "list table inet wall").stdout)
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    "wish",
    [("--iface", "eth9,eth1"), pytest.param(("--iface-can-reach", "198.51.100.2"), marks=pytest.mark.soak)],
    ids=lambda wish: wish[0],
)
def test_the_card_that_the_peer_takes_packets_from(crossed: Lab, secret: str, wish: tuple[str, str]) -> None:
    one, two = crossed.hosts
    one.agent.start(FAR, password=secret)
    assert one.agent.snapshot().host.underlay_mtu == 9000
    wait_until("what comes from the wrong address is dropped", lambda: dropped(two) >= 3, 5)
    assert "established" not in [connection.state for connection in one.agent.connections()]
    one.agent.stop()
    one.agent.start(*wish, FAR, password=secret)
    one.agent.wait_established(1)
    found = one.agent.snapshot()
    there = found.host
    assert (there.underlay, there.underlay_device, there.underlay_mtu) == ("198.51.100.1", "eth1", 1400)
    assert (found.mtu, found.endpoints) == (1400 - 124, ("198.51.100.1:6783",))
    assert f"Underlay: 198.51.100.1 (eth1), by {' '.join(wish)}" in one.agent.command("status").stdout
    (seen,) = two.agent.connections()
    assert seen.address == "198.51.100.1:6783"
    assert bound(one) == {"198.51.100.1"}
    assert bound(two) == {FAR}
    assert one.agent.command("report", "-f", "snapshot.host.underlay").stdout.strip() == "198.51.100.1"
    assert "uplink" in one.agent.command("doctor", check=False).stdout


def make_anew(lab: Lab, host: Host, address: str) -> None:
    """The card goes and comes again, as after a reset of its driver, with another address."""
    lab.fabric.namespace.ip(f"link del {host.name}")
    mtu, name = lab.fabric.mtu, host.namespace.name
    lab.fabric.namespace.ip(f"link add {host.name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}",
                            f"link set {host.name} master {BRIDGE} addrgenmode none up")  # fmt: skip
    host.namespace.ip("link set eth0 addrgenmode none up", f"address add {address}/24 dev eth0", default_route(address))
    host.address = address


def gap_of(lab: Lab, change: Callable[[], None]) -> float:
    """How long the pods' pings had no answer while that happened."""
    one, two = lab.hosts
    with Pings(one.pods[0], two.pods[0]) as pings:
        assert one.pods[0].ping(two.pods[0].address)
        began = time.time()
        change()
        ten = lambda: len(one.pods[0].ping(two.pods[0].address, count=10, seconds=0.5)) == 10  # noqa: E731
        wait_until("pings are answered again", ten, BACK_SECONDS + 5)
        wait_until("and by the peers' own word", lambda: places(one) == {two.endpoint}, 5)
    return max(after - before for before, after in pairwise([began, *(at for at in pings.answers if at > began)]))


@pytest.mark.parametrize(
    ("underlay", "wish", "anew"),
    [
        (4, ("--iface", "eth0"), False),
        pytest.param(4, ("--iface", "eth0"), True, marks=pytest.mark.soak),
        pytest.param(6, ("--iface", "eth0"), False, marks=pytest.mark.soak),
        pytest.param(4, (), True, marks=pytest.mark.soak),
        pytest.param(6, (), False, marks=pytest.mark.soak),
    ],
)
def test_a_changed_address_is_back_and_connections_stay(
    secret: str, underlay: Literal[4, 6], wish: tuple[str, ...], anew: bool
) -> None:
    elsewhere = "192.0.2.77" if underlay == 4 else "2001:db8::77"
    with Lab(hosts=2, offloads="off", underlay=underlay) as lab:
        lab.start_agents(*wish, password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        mover = lab.hosts[1]
        with stream_through(lab, 2 * RATE, rate=RATE) as stream:
            assert gap_of(lab, lambda: mover.readdress(elsewhere)) < BACK_SECONDS
            stream.finish(Once(0, lambda: None))
        if wish:
            assert mover.agent.snapshot().endpoints == (mover.endpoint,)
            assert bound(mover) == {f"[{elsewhere}]" if underlay == 6 else elsewhere}
        if anew:
            assert gap_of(lab, lambda: make_anew(lab, mover, "192.0.2.78")) < BACK_SECONDS


def places(host: Host) -> set[str]:
    return {connection.address for connection in host.agent.connections() if connection.state == "established"}


def test_what_is_missing_is_waited_for_and_another_agent_takes_no_sockets_of_elsewhere(secret: str) -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        two.agent.extra_environment = {"NOTIFY_SOCKET": "@nobody"}  # as of a service manager
        one.agent.start(password=secret)
        two.agent.start("--iface", "late0", one.endpoint, password=secret, wait=False)
        log = two.agent.log.read_text
        said = "--iface late0: there is no network device late0; name one that is there: eth0"
        wait_until("it says what is missing", lambda: said in log(), 20)
        asked = two.agent.command("status", check=False)
        assert (asked.returncode, said in asked.stderr) == (1, True)
        assert bound(two) == set()
        two.agent.ask_to_stop()
        assert two.agent.process.wait(5) == 0

        two.agent.restart(wait=False)
        two.namespace.ip("link add late0 type veth peer name late1")
        wait_until("it is down", lambda: "late0 is down" in log(), 20)
        two.namespace.ip("link set late0 up", "link set late1 up")
        wait_until("it has no address", lambda: "late0 has no address that other hosts know" in log(), 20)
        two.namespace.ip("address del 192.0.2.2/24 dev eth0", "address add 192.0.2.2/32 dev late0",
                         "route add 192.0.2.0/24 dev eth0 src 192.0.2.2")  # fmt: skip
        two.agent.wait_ready()
        two.agent.wait_established(1)

        workers = two.agent.workers()
        two.agent.leave()
        two.agent.restart()
        two.agent.wait_established(1)
        assert two.agent.workers() == workers, "nothing has changed"
        two.agent.leave()
        two.namespace.ip("address add 192.0.2.66/32 dev late0", "address del 192.0.2.2/32 dev late0",
                         "route add 192.0.2.0/24 dev eth0 src 192.0.2.66")  # fmt: skip
        two.agent.restart()
        two.agent.wait_established(1)
        assert not set(workers) & set(two.agent.workers())
        assert bound(two) == {"192.0.2.66"}
        two.namespace.ip("address del 192.0.2.66/32 dev late0")
        lost = "Warning: --iface late0: late0 has no address that other hosts know"
        wait_until("its loss is told", lambda: lost in two.agent.command("status", check=False).stdout, 5)
        wait_until(
            "what has no source is not sent", lambda: two.agent.snapshot().counters.get("drop_unreachable", 0) > 2, 5
        )
        two.namespace.ip("address add 192.0.2.66/32 dev late0", "route add 192.0.2.0/24 dev eth0 src 192.0.2.66")
        two.agent.wait_established(1)
        (row,) = two.agent.connections()
        assert row.mtu == 1376, "nothing was learnt of the path while there was none"
        assert bound(two) == {"192.0.2.66"}
