"""Who has the port, and which card leads to the peers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.doctor.patients import Patient
from tests.host.test_strangers import add
from tunrouter.host.choice import Wish

pytestmark = pytest.mark.root

HOLD = "import socket, sys; s = socket.socket({family}, 2); s.bind((sys.argv[1], 6783)); print('held', flush=True); input()"  # noqa: E501


def hold(patient: Patient, address: str = "", family: int = 2, *words: str) -> subprocess.Popen[str]:
    holder = patient.lab.host_ns.start("python3", "-c", HOLD.format(family=family), address, *words)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.fixture
def other_card(healthy: Patient) -> Iterator[None]:
    add(healthy.lab, "eth1", "veth peer name wire", "198.51.100.1/24")
    healthy.run("ip", "link", "set", "eth1", "up")
    healthy.run("ip", "link", "set", "wire", "up")
    yield
    healthy.run("ip", "link", "del", "eth1")


@pytest.mark.parametrize(("address", "family"), [("", 2), ("192.0.2.1", 2), ("::", 10)])
def test_who_has_the_port_is_named_by_program_and_pid(healthy: Patient, address: str, family: int) -> None:
    with hold(healthy, address, family) as holder:
        (found,) = healthy.finds("port", f"UDP 6783 is held by python3 (pid {holder.pid}: ")
        assert found.level == "fail"
        healthy.tell(running=True)
        assert healthy.finds("port", f"(pid {holder.pid}: "), "an agent that answers is not the one that has it"
        healthy.tell(running=False)
        healthy.obey([found])
        holder.wait(10)
    assert healthy.ailments() == []


def test_one_on_another_address_is_not_in_the_way(healthy: Patient, other_card: None) -> None:
    with hold(healthy, "198.51.100.1") as holder:
        healthy.finds("port", f"pid {holder.pid}")
        healthy.tell(host="192.0.2.1")
        assert healthy.ailments() == []
        healthy.tell(host="198.51.100.1")
        assert any(f.check == "port" for f in healthy.ailments())
        holder.communicate("\n")
    healthy.tell(host="")
    assert healthy.ailments() == []


def test_an_agent_without_its_port_is_named(healthy: Patient) -> None:
    healthy.tell(running=True)
    (found,) = healthy.finds("port", "an agent runs, but UDP 6783 is not open")
    assert found.fix == "restart the agent"


def test_an_address_that_no_device_has_is_named(healthy: Patient) -> None:
    healthy.tell(host="192.0.2.77")
    (found,) = healthy.finds("uplink", "the agent's address 192.0.2.77 is on no device")
    assert found.fix == "start the agent with --iface eth0"
    healthy.tell(host="192.0.2.1")
    assert healthy.ailments() == []


def test_the_card_that_is_bound_is_not_the_one_that_leads_to_the_peers(healthy: Patient, other_card: None) -> None:
    healthy.tell(host="198.51.100.1")
    (found,) = healthy.finds("uplink", "198.51.100.1 is eth1's, but peer 192.0.2.2 is reached through eth0")
    assert found.fix == "start the agent with --iface eth0, or with none"
    healthy.tell(host="192.0.2.1")
    assert healthy.ailments() == []
    healthy.tell(running=True)
    for address, ailing in (("198.51.100.1", ["uplink"]), ("192.0.2.1", []), ("", [])):
        with hold(healthy, address, 2, "tunrouter") as agent:
            assert [f.check for f in healthy.ailments()] == ailing, "one that runs is asked for what it has bound"
            agent.communicate("\n")


def test_a_wish_that_cannot_be_had_is_told_before_an_agent_starts(healthy: Patient, other_card: None) -> None:
    healthy.tell(wish=Wish(ifaces=("eth9",), said="--iface"))
    (found,) = healthy.finds("uplink", "--iface eth9: there is no network device eth9")
    assert found.level == "fail"
    assert found.fix == "name one that is there: eth0, eth1"
    healthy.tell(wish=Wish(ifaces=("eth1",), said="--iface"))
    (found,) = healthy.finds("uplink", "198.51.100.1 is eth1's, but peer 192.0.2.2 is reached through eth0")
    healthy.run("ip", "rule", "add", "from", "198.51.100.1", "lookup", "100")
    healthy.run("ip", "route", "add", "default", "dev", "eth1", "table", "100")
    assert healthy.ailments() == []
    healthy.run("ip", "rule", "del", "from", "198.51.100.1", "lookup", "100")
    healthy.tell(wish=Wish())


@pytest.mark.parametrize("device", ["weave", "tunrouter0"])
def test_a_way_to_a_peer_through_what_it_is_to_carry_is_named(healthy: Patient, device: str) -> None:
    healthy.run("ip", "route", "add", "192.0.2.2/32", "dev", device)
    found = [f for f in healthy.ailments() if f.check == "uplink"]
    assert f"the way to peer 192.0.2.2 leads into {device}" in found[0].text
    assert healthy.obey(found) == [f"ip route del 192.0.2.2/32 dev {device}"]
    assert healthy.ailments() == []


def test_a_way_through_a_network_of_containers_is_named(healthy: Patient) -> None:
    healthy.tell(peers=("172.17.3.4",))
    assert healthy.ailments() == []
    add(healthy.lab, "docker0", "bridge", "172.17.0.1/16")
    healthy.run("ip", "link", "set", "docker0", "up")
    found = healthy.finds("uplink", "the way to peer 172.17.3.4 leads through docker0, Docker's bridge")
    assert healthy.obey(found) == ["ip link del docker0"]
    assert healthy.ailments() == []


@pytest.mark.parametrize("name", ["br-ex", "docker0"])
def test_a_bridge_that_leads_to_everywhere_is_a_card_like_any_other(healthy: Patient, name: str) -> None:
    """A host's own bridges have all kinds of names."""
    add(healthy.lab, name, "bridge", "198.51.100.1/24")
    healthy.run("ip", "link", "set", name, "up")
    healthy.tell(peers=("198.51.100.9",))
    if name == "docker0":
        healthy.finds("uplink", "leads through docker0")
        healthy.run("ip", "route", "add", "default", "dev", name, "metric", "9")
    assert healthy.ailments() == []
    healthy.run("ip", "link", "del", name)


def test_a_peer_that_no_route_leads_to_is_named(healthy: Patient) -> None:
    healthy.tell(peers=("192.0.2.2", "203.0.113.9"))
    healthy.run("ip", "route", "add", "unreachable", "203.0.113.0/24")
    healthy.finds("uplink", "there is no route to peer 203.0.113.9")
    healthy.run("ip", "route", "del", "unreachable", "203.0.113.0/24")
    assert healthy.ailments() == []
