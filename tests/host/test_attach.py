"""What a pod gets, what it may not do, and what attaching refuses."""

from __future__ import annotations

import gc
import json
import os
import struct
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.host.lab import BLOCK, GATEWAY, LISTEN, PLAN, SEND, Lab, Namespace, attach, detach, wait_until
from tunrouter.edge import netns
from tunrouter.edge.netlink import Link, nft
from tunrouter.edge.netlink.pairs import Pairs
from tunrouter.errors import ConfigError, HostError
from tunrouter.host import Attached, Host, Wanted

pytestmark = pytest.mark.root

A, B = IPv4Address("10.32.1.2"), IPv4Address("10.32.1.3")


@pytest.fixture
def host(lab: Lab) -> Host:
    found = lab.host()
    lab.inside(found.apply)
    return found


def test_a_pod_gets_address_route_and_mtu_and_nothing_more(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    (link,) = [entry for entry in json.loads(pod.run("ip", "-j", "addr")) if entry["ifname"] != "lo"]
    addresses = [entry for entry in link["addr_info"] if entry["family"] == "inet"]
    assert (link["ifname"], link["mtu"]) == ("eth0", PLAN.mtu)
    assert [(entry["local"], entry["prefixlen"]) for entry in addresses] == [(str(A), 32)]
    routes = {entry["dst"]: entry for entry in json.loads(pod.run("ip", "-j", "route"))}
    assert routes.keys() == {"default", "10.32.1.1"}
    assert routes["default"]["flags"] == ["onlink"]
    assert pod.run("sysctl", "-n", "net.ipv6.conf.eth0.accept_ra").strip() == "0"


def test_what_is_attached_is_known_to_the_next_agent(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    lab.inside(lambda: attach(host, pod.path, "second one", B, "net1", 1300))
    (port,) = {found.port for found in lab.inside(host.attached) if found.address == B}
    expected = Attached(port=port, name="second one", address=B, interface="net1", mtu=1300, gateway=GATEWAY)
    assert expected in lab.inside(lab.host().attached)


def test_attaching_again_changes_nothing_and_with_another_address_moves(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    before = lab.state(), pod.run("ip", "addr")
    lab.inside(lambda: attach(host, pod.path, pod.name, A, "eth0", PLAN.mtu))
    assert (lab.state(), pod.run("ip", "addr")) == before
    lab.inside(lambda: attach(host, pod.path, pod.name, B, "eth0", PLAN.mtu))
    assert lab.host_ns.pings(str(B))
    assert [found.address for found in lab.inside(host.attached)] == [B]


def test_what_was_changed_inside_is_brought_back_by_attaching_again(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    pod.run("ip", "addr", "flush", "dev", "eth0")
    pod.run("ip", "link", "set", "eth0", "mtu", "1000")
    assert not pod.pings("10.32.1.1")
    lab.inside(lambda: attach(host, pod.path, pod.name, A, "eth0", PLAN.mtu))
    assert pod.pings("10.32.1.1", "-s", "1348", "-M", "do")


def test_detaching_succeeds_whether_the_pod_is_there_or_not(lab: Lab, host: Host) -> None:
    lab.pod(host, str(B))
    before = lab.state()
    pod = lab.pod(host, str(A))
    assert [gone.address for gone in lab.inside(lambda: detach(host, pod.path, pod.name, "eth0"))] == [A]
    assert lab.state() == before
    assert not lab.inside(lambda: detach(host, pod.path, pod.name, "eth0"))
    assert not lab.inside(lambda: detach(host, "/run/netns/never-was", "never-was", "eth0"))


def test_a_pod_whose_namespace_lost_its_name_is_found_by_its_own(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    keeper = pod.start("sh", "-c", "echo held; read line")
    assert keeper.stdout
    assert keeper.stdout.readline() == "held\n"
    pod.remove()
    try:
        assert len(lab.inside(host.attached)) == 1
        assert lab.inside(lambda: detach(host, pod.path, pod.name, "eth0"))
        assert lab.inside(host.attached) == []
    finally:
        keeper.communicate("\n")


def test_a_dead_pod_takes_its_right_to_the_address_with_it(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    assert str(A) in lab.host_ns.run("nft", "list", "table", "bridge", "tunrouter")
    wait_until(lambda: not lab.inside(host.repair))
    assert lab.inside(host.repair) == []
    pod.remove()
    wait_until(lambda: lab.inside(host.attached) == [])
    lab.inside(host.repair)
    assert str(A) not in lab.host_ns.run("nft", "list", "table", "bridge", "tunrouter")


def test_refusals_say_what_to_do_and_leave_nothing(lab: Lab, host: Host, tmp_path: Path) -> None:
    pod, other = lab.pod(host, str(A)), lab.outside
    (tmp_path / "file").touch()
    before = lab.state()
    cases: list[tuple[type[Exception], str, tuple[str, str, IPv4Address, str, int]]] = [
        (ConfigError, "own network namespace", (lab.host_ns.path, "self", B, "eth0", 1376)),
        (ConfigError, "is no network namespace", (str(tmp_path / "file"), "file", B, "eth0", 1376)),
        (ConfigError, "is no network namespace", (f"/proc/{os.getpid()}/ns/mnt", "mnt", B, "eth0", 1376)),
        (ConfigError, "No such file", ("/run/netns/never-was", "x", B, "eth0", 1376)),
        (ConfigError, f"held by {pod.name}", (other.path, "x", A, "eth1", 1376)),
        (ConfigError, "cannot be a pod's", (other.path, "x", IPv4Address("10.32.1.1"), "eth1", 1376)),
        (ConfigError, "cannot be a pod's", (other.path, "x", IPv4Address("10.32.1.255"), "eth1", 1376)),
        (ConfigError, "cannot be a pod's", (other.path, "x", IPv4Address("10.33.1.2"), "eth1", 1376)),
        (ConfigError, "is no device name", (other.path, "x", B, "eth0/../x", 1376)),
        (ConfigError, "is no name", (other.path, "two\nlines", B, "eth1", 1376)),
        (ConfigError, "is no name", (other.path, "\x1b[31m", B, "eth1", 1376)),
        (ConfigError, "MTU 10", (other.path, "x", B, "eth1", 10)),
        (HostError, "File exists", (other.path, "x", B, "eth0", 1376)),
    ]
    for kind, text, (path, name, address, interface, mtu) in cases:
        with pytest.raises(kind, match=text) as caught:
            lab.inside(lambda: attach(host, path, name, address, interface, mtu))  # noqa: B023
        assert caught.value.fix  # type: ignore[attr-defined]
        assert lab.state() == before, text


def test_a_failure_inside_the_pod_leaves_nothing(lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise HostError("inside", "again")

    lab.pod(host, str(B))
    before = lab.state()
    monkeypatch.setattr("tunrouter.edge.netlink.Inside.configure", fails)
    with pytest.raises(HostError, match="inside"):
        lab.pod(host, str(A))
    assert lab.state() == before


def test_nobody_keeps_a_namespace_that_its_container_has_left(
    lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise HostError("inside", "again")

    pod = lab._namespace("p")
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        attach_all(lab, host, wanted(pod, A), wanted(pod, GATEWAY))
        with monkeypatch.context() as patch:
            patch.setattr("tunrouter.edge.netlink.Inside.configure", fails)
            assert isinstance(attach_all(lab, host, wanted(pod, B))[0], HostError)
        lab.inside(lambda: host.find(host.open(pod.path), "eth1"))
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_the_gateway_is_there_while_others_are_taken_off(lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    pod, seen = lab.pod(host, str(A)), []
    replace = nft.replace

    def looked(gone: nft.Elements, come: nft.Elements, generation: int) -> bool:
        seen.append(host.gateway)
        return replace(gone, come, generation)

    monkeypatch.setattr("tunrouter.edge.netlink.nft.replace", looked)
    lab.inside(lambda: detach(host, pod.path, pod.name, "eth0"))
    assert seen == [GATEWAY]


def test_attaching_again_what_has_more_addresses_leaves_it_its_port(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    for address in ("192.168.5.1/24", "192.168.5.2/24"):
        pod.run("ip", "addr", "add", address, "dev", "eth0")
    lab.inside(lambda: attach(host, pod.path, pod.name, A, "eth0", PLAN.mtu))
    assert pod.pings(str(GATEWAY))


def test_attaching_again_in_vain_takes_nothing_away(lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise HostError("inside", "again")

    pod = lab.pod(host, str(A))
    with monkeypatch.context() as patch:
        patch.setattr("tunrouter.edge.netlink.Inside.configure", fails)
        with pytest.raises(HostError, match="inside"):
            lab.inside(lambda: attach(host, pod.path, pod.name, A, "eth0", PLAN.mtu))
    assert pod.pings(str(GATEWAY))


def test_what_a_killed_agent_left_half_done_goes_and_nothing_of_others(lab: Lab, host: Host) -> None:
    run = lab.host_ns.run
    kept, doomed, half = lab.pod(host, str(A)), lab.pod(host, str(B)), lab._namespace("p")
    run("ip", "link", "set", port_of(lab, B), "group", "1953853042")
    for name, end in (("vethwe012345678", "eth0"), ("vethwepl1234567", "eth1")):
        run("ip", "link", "add", name, "type", "veth", "peer", "name", end, "netns", half.name)
    lab.inside(lab.host().apply)
    assert kept.pings(str(GATEWAY))
    assert "eth0" not in doomed.run("ip", "link")
    left = half.run("ip", "link")
    assert "eth0" not in left
    assert "eth1" in left


def test_a_permission_for_everybody_is_taken_back(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    lab.host_ns.run("nft", "add element bridge tunrouter pods { * }")
    assert "table bridge tunrouter" in lab.inside(host.repair)
    assert "*" not in permitted(lab)
    assert pod.pings(str(GATEWAY))


def test_a_bridge_that_is_down_keeps_a_batch_waiting_once(
    lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunrouter.host.setup.FORWARDING_SECONDS", 1.0)
    pods = [lab._namespace("p") for _ in range(5)]
    lab.host_ns.run("ip", "link", "set", "weave", "down")
    began = time.monotonic()
    results = attach_all(lab, host, *(wanted(pod, BLOCK[number + 2]) for number, pod in enumerate(pods)))
    assert time.monotonic() - began < 3.0
    assert all("does not come up" in str(result) for result in results.values())
    assert host.facts().attachments == 0
    lab.inside(host.repair)
    assert all(isinstance(result, Attached) for result in attach_all(lab, host, wanted(pods[0], A)).values())


def test_ports_are_put_back_as_they_were_made(lab: Lab, host: Host) -> None:
    pod = lab.pod(host, str(A))
    before, port = lab.state(), port_of(lab, A)
    run = lab.host_ns.run
    mac = json.loads(pod.run("ip", "-j", "link", "show", "eth0"))[0]["address"]
    for change in (
        ("ip", "link", "set", port, "down"),
        ("bridge", "link", "set", "dev", port, "learning", "on", "flood", "on"),
        ("ip", "link", "set", port, "type", "bridge_slave", "group_fwd_mask", "0"),
        ("bridge", "fdb", "del", mac, "dev", port, "master"),
    ):
        run(*change)
        run("ip", "link", "set", "lo", "mtu", "65000")  # news of neighbours are not heard
        run("ip", "link", "set", "lo", "mtu", "65536")
        assert any(port in line for line in lab.inside(host.repair)), change
        assert lab.state() == before, change
        assert pod.pings(str(GATEWAY)), change


def test_a_port_that_goes_while_all_are_repaired_keeps_nobody_else_waiting(
    lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        lab.pod(host, str(BLOCK[number + 2]))
    ensure = Pairs.ensure_mode
    gone: list[str] = []

    def goes(self: Pairs, port: Link, *, isolated: bool) -> bool:
        if not gone:
            gone.append(port.name)
            lab.host_ns.run("ip", "link", "del", port.name)
        return ensure(self, port, isolated=isolated)

    lab.nf_call(1)
    monkeypatch.setattr("tunrouter.edge.netlink.pairs.Pairs.ensure_mode", goes)
    lab.inside(host.repair)
    details = lab.host_ns.run("bridge", "-d", "link")
    assert details.count("hairpin on") == 2
    lab.nf_call(0)


def port_of(lab: Lab, address: IPv4Address) -> str:
    return next(line.split('"')[1] for line in permitted(lab).splitlines() if f" {address} " in f"{line} ")


SEND_FRAME = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
    s.bind(("eth0", 0))
    s.send(bytes.fromhex(sys.argv[1]))
"""
SHOW_MARKED = """
import socket
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
    s.settimeout(0.5)
    print("ready", flush=True)
    try:
        while True:
            print("marked" if b"MARK" in s.recv(2000) else "", flush=True)
    except TimeoutError:
        pass
"""


@pytest.mark.parametrize("nf_call", [0, 1])
def test_a_pod_cannot_take_another_s_or_the_gateway_s_address(lab: Lab, nf_call: int) -> None:
    lab.nf_call(nf_call)
    host = lab.host()
    lab.inside(host.apply)
    attacker, victim = lab.pod(host, str(A)), lab.pod(host, str(B))
    assert attacker.pings(str(B))
    mac = bytes.fromhex(json.loads(attacker.run("ip", "-j", "link", "show", "eth0"))[0]["address"].replace(":", ""))
    for claimed in (GATEWAY, B):
        answer = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + mac + claimed.packed + mac + claimed.packed
        attacker.run("python3", "-c", SEND_FRAME, (b"\xff" * 6 + mac + b"\x08\x06" + answer).hex())
    assert mac.hex(":") not in victim.run("ip", "neigh")
    assert f"{B} dev weave lladdr {mac.hex(':')}" not in lab.host_ns.run("ip", "neigh")
    # The same frames with the pod's own address pass, so the rule above is what stopped them.
    assert attacker.pings("10.32.1.1")
    attacker.run("ip", "addr", "add", f"{B}/32", "dev", "eth0")
    attacker.run("ip", "addr", "add", "10.32.1.77/32", "dev", "eth0")
    for source, arrives in ((A, True), (B, False), ("10.32.1.77", False), (A, True)):
        listener = lab.host_ns.start("python3", "-c", LISTEN, "9000")
        assert listener.stdout
        assert listener.stdout.readline() == "ready\n"
        attacker.run("python3", "-c", SEND, "10.32.1.1", "9000", str(source))
        assert ("got" in listener.communicate()[0]) is arrives, source
    victim_mac = json.loads(victim.run("ip", "-j", "link", "show", "eth0"))[0]["address"]
    question = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + mac + A.packed + bytes(6) + GATEWAY.packed
    frame = b"\xff" * 6 + bytes.fromhex(victim_mac.replace(":", "")) + b"\x08\x06" + question
    attacker.run("python3", "-c", SEND_FRAME, frame.hex())
    assert lab.host_ns.pings(str(B)), "a borrowed MAC does not draw the victim's traffic"


def test_ports_pass_no_frame_to_each_other(lab: Lab) -> None:
    lab.nf_call(1)
    host = lab.host()
    lab.inside(host.apply)
    sender, receiver = lab.pod(host, str(A)), lab.pod(host, str(B))
    mac = bytes.fromhex(json.loads(receiver.run("ip", "-j", "link", "show", "eth0"))[0]["address"].replace(":", ""))
    request = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + b"\x02" * 6 + A.packed + bytes(6) + B.packed
    for kind, payload in ((0x88B5, b"MARK" * 20), (0x86DD, b"MARK" * 20), (0x0806, request + b"MARK" * 5)):
        for destination in (mac, b"\xff" * 6):
            listener = receiver.start("python3", "-c", SHOW_MARKED)
            assert listener.stdout
            assert listener.stdout.readline() == "ready\n"
            frame = destination + b"\x02\x00\x00\x00\x00\x07" + struct.pack(">H", kind) + payload
            sender.run("python3", "-c", SEND_FRAME, frame.hex())
            assert "marked" not in listener.communicate()[0]


@pytest.mark.parametrize("nf_call", [0, 1])
def test_services_reach_other_pods_and_the_caller_itself(lab: Lab, nf_call: int) -> None:
    """As kube-proxy translates: a service address to a pod here, masqueraded where a pod calls itself."""
    lab.nf_call(nf_call)
    host = lab.host()
    lab.inside(host.apply)
    a, b = lab.pod(host, str(A)), lab.pod(host, str(B))
    lab.host_ns.run("nft", "-f", "-", text=f"""
    table ip proxy {{
      chain pre {{
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.1 tcp dport 80 dnat to {A}:8080
        ip daddr 10.96.0.2 tcp dport 80 dnat to {B}:8080
      }}
      chain post {{
        type nat hook postrouting priority srcnat;
        ip saddr {A} ip daddr {A} masquerade
      }}
    }}
    """)  # fmt: skip
    serve = (
        "import socket\nl=socket.create_server(('',8080))\nwhile True: c=l.accept()[0]; c.sendall(b'hello'); c.close()"
    )
    call = "import socket,sys; print(socket.create_connection((sys.argv[1], 80), 3).recv(9))"
    servers = [pod.start("python3", "-c", serve) for pod in (a, b)]
    try:
        for pod in (a, b):
            wait_until(lambda: ":8080 " in pod.run("ss", "-ltn"))  # noqa: B023
        for service in ("10.96.0.2", "10.96.0.1"):
            assert "hello" in a.run("python3", "-c", call, service)
        assert lab.host_ns.pings(str(A))
    finally:
        for server in servers:
            server.kill()
            server.communicate()


@pytest.mark.parametrize("last", [0x00, 0x03, 0x0E])
def test_frames_to_the_nearest_bridge_meet_the_rules_as_any_other(lab: Lab, last: int) -> None:
    """LLDP's address is handed up before all hooks of the bridge family: the host would believe what it says."""
    host = lab.host()
    lab.inside(host.apply)
    attacker = lab.pod(host, str(A))
    mac = bytes.fromhex(json.loads(attacker.run("ip", "-j", "link", "show", "eth0"))[0]["address"].replace(":", ""))
    for target in (bytes.fromhex(PLAN.bridge_mac.replace(":", "")), bytes([1, 0x80, 0xC2, 0, 0, last])):
        question = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + mac + B.packed + bytes(6) + GATEWAY.packed
        attacker.run("python3", "-c", SEND_FRAME, (target + mac + b"\x08\x06" + question).hex())
    attacker.run("ping", "-c1", str(GATEWAY))
    assert f"{B} " not in lab.host_ns.run("ip", "neigh")


def wanted(pod: Namespace, address: IPv4Address) -> Wanted:
    return Wanted(netns.Namespace(pod.path), pod.name, address, "eth0", PLAN.mtu)


def permitted(lab: Lab) -> str:
    return lab.host_ns.run("nft", "list", "set", "bridge", "tunrouter", "pods")


def attach_all(lab: Lab, host: Host, *pods: Wanted) -> dict[int, Attached | Exception]:
    results: dict[int, Attached | Exception] = {}
    lab.inside(lambda: host.attach(pods, results.__setitem__))
    return results


def test_of_a_batch_who_cannot_be_attached_fails_alone(lab: Lab, host: Host) -> None:
    first, second = lab._namespace("p"), lab._namespace("p")
    third = Wanted(netns.Namespace(second.path), "third", BLOCK[9], "eth0", 10)
    results = attach_all(lab, host, wanted(first, A), third, wanted(second, A), wanted(second, B))
    assert [isinstance(results[number], Attached) for number in range(4)] == [True, False, False, True]
    assert "is held by" in str(results[2])
    assert first.pings(str(B))
    assert str(BLOCK[9]) not in permitted(lab)


def refuse_rules(patch: pytest.MonkeyPatch) -> None:
    def refuses(commands: str) -> None:
        raise HostError("no room", "")

    patch.setattr("tunrouter.edge.netlink.nft.apply", refuses)
    patch.setattr("tunrouter.edge.netlink.nft.replace", lambda *_: False)


def test_a_batch_whose_rules_are_refused_leaves_nothing(lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = lab._namespace("p")
    before = lab.state()
    with monkeypatch.context() as patch:
        refuse_rules(patch)
        with pytest.raises(HostError, match="no room"):
            attach_all(lab, host, wanted(pod, A))
    assert not host.holds(pod.name, "eth0")
    assert host.facts().attachments == 0
    lab.inside(host.repair)
    assert lab.state() == before


def test_whoever_empties_the_set_while_a_pod_comes_is_found_out(
    lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = lab.pod(host, str(A))
    replace = nft.replace

    def raced(gone: nft.Elements, come: nft.Elements, generation: int) -> bool:
        lab.host_ns.run("nft", "flush", "set", "bridge", "tunrouter", "pods")
        return replace(gone, come, generation)

    with monkeypatch.context() as patch:
        patch.setattr("tunrouter.edge.netlink.nft.replace", raced)
        lab.pod(host, str(B))
    lab.inside(host.repair)
    assert str(A) in permitted(lab)
    assert str(B) in permitted(lab)
    assert one.pings(str(GATEWAY))


def test_a_repair_that_fails_is_tried_again(lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(commands: str) -> None:
        raise HostError("no room", "")

    before = lab.state()
    lab.host_ns.run("nft", "flush", "ruleset")
    with monkeypatch.context() as patch:
        patch.setattr("tunrouter.edge.netlink.nft.apply", refuses)
        with pytest.raises(HostError, match="no room"):
            lab.inside(host.repair)
    lab.inside(host.repair)
    assert lab.state() == before


def test_permissions_that_could_not_be_taken_back_are_by_the_next_repair(
    lab: Lab, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = lab.pod(host, str(A))
    with monkeypatch.context() as patch:
        refuse_rules(patch)
        with pytest.raises(HostError, match="no room"):
            lab.inside(lambda: detach(host, pod.path, "another name", "eth0"))
    assert str(A) in permitted(lab)
    assert not host.holds(pod.name, "eth0")
    lab.inside(host.repair)
    assert str(A) not in permitted(lab)
