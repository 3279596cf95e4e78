"""What holds for pods of any container runtime: the tests that each runtime's own file takes over.

Law: a runtime gets no help. What a test sees of a pod is what the runtime itself tells and does.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.runtimes.leftovers import notes_of, remains, state
from tests.runtimes.runtime import Pair, Pod, Port, fetch
from tunrouter.bench.agent import Agent
from tunrouter.bench.capture import Capture
from tunrouter.bench.fabric import GATEWAY
from tunrouter.bench.namespaces import wait_until

RANGE = "10.32.0.0/12"
HOST_PORT = 8080
BROKEN = """\
[ $CNI_COMMAND = ADD ] || exec $whole
echo '{"cniVersion": "1.0.0", "code": 999, "msg": "broken on purpose"}'
exit 1
"""
DEPARTURES: dict[str, Callable[[Agent], None]] = {"stopped": Agent.stop, "killed": Agent.kill}


def wait_serving(pod: Pod) -> None:
    wait_until(f"{pod} listens", lambda: pod.fetch("127.0.0.1"), 10, pause=0.1)


def held(pod: Pod) -> bool:
    """Whether the agent knows the pod, by the address that the runtime tells."""
    lines = pod.runtime.host.agent.command("ps", "-o", "wide").stdout.splitlines()
    return any(pod.identity in line and f" {pod.address}/32" in line for line in lines)


class EveryRuntime:
    def test_pods_reach_each_other_across_hosts_and_on_the_same_host(self, pair: Pair) -> None:
        one, two = pair
        pods = [one.serve("first"), one.serve("second"), two.serve("third")]
        assert len({pod.address for pod in pods}) == 3
        for pod in pods:
            assert held(pod), f"{pod} with {pod.address}"
            wait_serving(pod)
        for sender in pods:
            for receiver in pods:
                assert sender.ping(receiver.address), f"{sender} to {receiver}"
            assert [sender.fetch(receiver.address) for receiver in pods] == ["first", "second", "third"]

    def test_pods_and_hosts_reach_each_other(self, pair: Pair) -> None:
        near, far = (runtime.serve(runtime.host.name) for runtime in pair)
        for pod, other in ((near, far), (far, near)):
            wait_serving(pod)
            for host in (pod.runtime.host, other.runtime.host):
                assert fetch(host, pod.address) == pod.runtime.host.name, f"{host} to {pod}"
                assert pod.ping(f"10.32.{host.number}.1"), f"{pod} to {host}'s bridge"
                assert pod.ping(host.address), f"{pod} to {host}'s underlay address"

    def test_a_pod_reaches_the_world_outside_with_its_hosts_address(self, pair: Pair) -> None:
        host = pair[0].host
        pod = pair[0].launch("sleep", "infinity")
        with Capture(host.namespace, host.lab.directory / "wire") as capture:
            assert pod.ping(GATEWAY)
            capture.wait_for(1, f"icmp and src {host.address} and dst {GATEWAY}")
            assert capture.packets(f"net {RANGE}") == []

    def test_a_port_of_the_host_leads_to_its_pod_from_everywhere(self, pair: Pair) -> None:
        one, two = pair
        server = one.serve("hello", host_port=HOST_PORT)
        neighbour, stranger = (runtime.launch("sleep", "infinity") for runtime in pair)
        wait_serving(server)
        for address in (one.host.address, f"10.32.{one.host.number}.1"):
            assert fetch(two.host, address, HOST_PORT) == "hello", f"another host to {address}"
            assert fetch(one.host, address, HOST_PORT) == "hello", f"its own host to {address}"
            for client in (neighbour, stranger, server):
                assert client.fetch(address, HOST_PORT) == "hello", f"{client} to {address}"
        assert fetch(one.host, "127.0.0.1", HOST_PORT) == "hello"

    def test_a_port_of_the_host_leads_to_its_pod_where_docker_drops_what_is_forwarded(self, pair: Pair) -> None:
        one, two = pair
        server = one.serve("hello", host_port=HOST_PORT)
        wait_serving(server)
        one.host.drop_forwarded()
        try:
            assert fetch(two.host, one.host.address, HOST_PORT) == "hello"
            assert two.launch("sleep", "infinity").fetch(one.host.address, HOST_PORT) == "hello"
            assert server.ping(GATEWAY)
        finally:
            one.host.namespace.run("iptables", "-P", "FORWARD", "ACCEPT")

    def test_removal_leaves_nothing_and_ends_what_was_reached(self, pair: Pair) -> None:
        one, two = pair
        server = one.serve("hello", host_port=HOST_PORT)
        client = two.launch("sleep", "infinity")
        wait_serving(server)
        assert client.fetch(server.address) == fetch(two.host, one.host.address, HOST_PORT) == "hello"
        assert set(remains(one.host)) == {"links", "addresses", "port rules"}
        server.remove()
        assert remains(one.host) == {}
        assert "hello" not in client.fetch(server.address)
        assert "hello" not in fetch(two.host, one.host.address, HOST_PORT)

    def test_a_pod_with_ports_leaves_its_host_as_it_was(self, pair: Pair) -> None:
        one, _ = pair
        ports = (Port(HOST_PORT), Port(HOST_PORT, protocol="udp"), Port(HOST_PORT + 1, protocol="udp"))
        one.launch("sleep", "infinity", ports=ports).remove()
        # What is for all pods, portmap makes with the first one's ports.
        before = state(one.host)
        pod = one.launch("sleep", "infinity", ports=ports)
        assert state(one.host) != before
        assert pod.namespace.exists()
        assert notes_of(pod.identity)
        pod.remove()
        assert state(one.host) == before
        assert not pod.namespace.exists()
        assert notes_of(pod.identity) == []

    def test_pods_that_start_at_once_all_have_addresses_of_their_own(self, pair: Pair) -> None:
        with ThreadPoolExecutor(4) as pool:
            pods = list(pool.map(lambda number: pair[number % 2].serve(f"pod {number}"), range(6)))
        assert len({pod.address for pod in pods}) == len(pods)
        for pod in pods:
            wait_serving(pod)
        assert [pods[0].fetch(pod.address) for pod in pods] == [f"pod {number}" for number in range(6)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Pod.remove, pods))
        assert [remains(runtime.host) for runtime in pair] == [{}, {}]

    def test_a_pod_whose_set_up_fails_at_a_later_plugin_leaves_nothing(self, pair: Pair) -> None:
        one, _ = pair
        with one.instead("portmap", BROKEN), pytest.raises(Exception, match="broken on purpose"):
            one.serve("hello", host_port=HOST_PORT)
        assert remains(one.host) == {}
        server = one.serve("hello", host_port=HOST_PORT)
        wait_serving(server)

    @pytest.mark.parametrize("departure", DEPARTURES)
    def test_pods_stay_while_their_agent_is_away_and_go_on_when_it_is_back(self, pair: Pair, departure: str) -> None:
        one, two = pair
        server, neighbour = one.serve("hello", host_port=HOST_PORT), one.launch("sleep", "infinity")
        client = two.launch("sleep", "infinity")
        wait_serving(server)
        assert client.fetch(server.address) == "hello"
        DEPARTURES[departure](one.host.agent)
        assert neighbour.fetch(server.address) == "hello"
        one.host.agent.restart()
        one.host.agent.wait_established(1)
        assert held(server)
        assert client.fetch(server.address) == neighbour.fetch(server.address) == "hello"
        assert neighbour.ping(client.address)
        assert fetch(two.host, one.host.address, HOST_PORT) == "hello"
        later = one.serve("later")
        wait_serving(later)
        assert later.address not in {server.address, neighbour.address}
        assert client.fetch(later.address) == "later"
        for pod in (server, neighbour, later):
            pod.remove()
        assert remains(one.host) == {}

    def test_a_pod_removed_while_its_agent_is_away_is_forgotten_when_that_is_back(self, pair: Pair) -> None:
        one, two = pair
        gone, stays = one.serve("gone", host_port=HOST_PORT), one.serve("stays")
        client = two.launch("sleep", "infinity")
        one.host.agent.kill()
        gone.remove()
        one.host.agent.restart()
        one.host.agent.wait_established(1)
        wait_until("the pod is forgotten", lambda: not held(gone), 5)
        assert held(stays)
        wait_serving(stays)
        assert client.fetch(stays.address) == "stays"

    def test_a_pod_is_made_by_an_agent_that_comes_back_in_time(self, pair: Pair) -> None:
        one, two = pair
        one.host.agent.kill()
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(one.serve, "patient")
            one.host.agent.restart()
            pod = made.result(30)
        one.host.agent.wait_established(1)
        wait_serving(pod)
        assert fetch(two.host, pod.address) == "patient"
