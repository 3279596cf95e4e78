"""What is planted between real agents is named, with what mends it, by `tunrouter doctor` of the host that it ails.

host1 … host3   one network; host1 has a clock that is set, and host2 → host3 is dead
host4           calls host1 with another password, and host7, which it does not hear; it waits for more founders
host5, host6    in the network of host1, the one with another range, the other with the block of host3
host7           has the password of host4, is not heard by it, and has five addresses for containers
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from tests.e2e.test_healing import Pings, build_wall_clock
from tests.e2e.test_mesh import snapshot
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.keys import generate_secret
from tunrouter.core.status import Snapshot
from tunrouter.doctor import Finding, told
from tunrouter.edge.api import Lease, ReserveCall, StatusCall
from tunrouter.edge.api.client import Client
from tunrouter.errors import TunrouterError

pytestmark = pytest.mark.root

HOUR = 3600
BLOCKS = {"traffic to host5 is dropped", "10.32.3.0/24 of host3 is not used", "10.32.3.0/24 of host6 is not used"}


class Diagnosis(NamedTuple):
    code: int
    findings: list[Finding]

    def of(self, check: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.check == check and finding.level != "ok"]


DIAGNOSES: dict[Host, Diagnosis] = {}
"""The last of each host: one that has what is looked for is not asked for again."""


def doctor(host: Host) -> Diagnosis:
    """What a user sees."""
    done = host.agent.command("doctor", "-o", "json", check=False)
    findings = [Finding(**finding) for finding in json.loads(done.stdout)["findings"]]
    return Diagnosis(done.returncode, findings)


def complains(host: Host, check: str, words: str) -> bool:
    """The agent knows it: asked without a process of its own."""
    found = snapshot(host)
    return found is not None and any(
        finding.check == check and re.search(words, finding.text) for finding in told(found) if finding.level != "ok"
    )


def wait_for(host: Host, check: str, words: str, seconds: float = 20) -> list[Finding]:
    """What the doctor of `host` says about `check`, once the agent knows of it."""
    wait_until(f"{host.name}: {words}", lambda: complains(host, check, words), seconds, pause=0.1)
    known = DIAGNOSES.get(host)
    if known is None or not any(re.search(words, finding.text) for finding in known.of(check)):
        known = DIAGNOSES[host] = doctor(host)
    return known.of(check)


@pytest.fixture(scope="module")
def ward(secret: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("clock")
    clock = folder / "clock"
    clock.write_text("0\n")
    with Lab(hosts=7, offloads="off") as lab:
        one, two, three, four, five, six, seven = lab.hosts
        one.agent.extra_environment = {"LD_PRELOAD": str(build_wall_clock(folder)), "WALL_CLOCK": str(clock)}
        four.agent.block, seven.agent.block = "", ""
        five.agent.block, six.agent.block = "10.48.5.0/24", three.agent.block
        cut(lab, seven, four)
        seed, other = one.address, generate_secret(os.urandom)
        start(one, secret)
        start(two, secret, seed)
        start(three, secret, seed)
        start(four, other, seed, seven.address, "--init-peers", "3")
        start(five, secret, seed, "--range", "10.48.0.0/12")
        start(six, secret, seed)
        start(seven, other, "--range", "10.32.0.0/29", "--block-size", "29")
        wait_until("all answer", lambda: all(map(snapshot, lab.hosts)), 30)
        wait_until("host2 and host3 have met", lambda: met(two, three), 15)
        cut(lab, two, three)
        clock.write_text(f"{HOUR}\n")
        yield lab


def cut(lab: Lab, sender: Host, receiver: Host) -> None:
    """One direction for all but what a switch would see to: `receiver` knows where `sender` is without an answer."""
    (link,) = json.loads(sender.namespace.run("ip", "-j", "link", "show", "eth0").stdout)
    receiver.namespace.ip(f"neigh replace {sender.address} lladdr {link['address']} dev eth0 nud permanent")
    lab.fabric.cut(sender.name, receiver.name)


def start(host: Host, secret: str, *arguments: str) -> None:
    host.agent.start(*arguments, password=secret, wait=False)


def met(one: Host, other: Host) -> bool:
    found = snapshot(one)
    rows = found.connections if found is not None else ()
    return any(row.nickname == other.name and row.state == "established" and row.path == "direct" for row in rows)


def test_a_wrong_password_is_named_at_both_ends(ward: Lab) -> None:
    one, four = ward.hosts[0], ward.hosts[3]
    (here,) = wait_for(one, "password", r"192\.0\.2\.4")
    assert re.fullmatch(r"192\.0\.2\.4: wrong password \(\d+ handshakes refused of late\)", here.text)
    (there,) = wait_for(four, "password", r"192\.0\.2\.1")
    assert (there.level, there.text) == ("fail", "192.0.2.1: wrong password")
    assert "--password-file" in here.fix
    assert here.fix == there.fix


def test_another_range_is_named_at_both_ends(ward: Lab) -> None:
    one, five = ward.hosts[0], ward.hosts[4]
    (here,) = [f for f in wait_for(one, "blocks", "traffic to host5") if "host5" in f.text]
    assert "outside the range 10.32.0.0/12" in here.text
    assert here.level == "fail"
    assert "--range 10.32.0.0/12 and --block-size 24" in here.fix
    assert any("outside the range 10.48.0.0/12" in f.text for f in wait_for(five, "blocks", "traffic to host1"))


def test_one_block_of_two_nodes_is_named_everywhere(ward: Lab) -> None:
    one, _, three, _, _, six, *_ = ward.hosts
    for host in (one, three, six):
        (found,) = [f for f in wait_for(host, "blocks", "is not used") if "not used" in f.text]
        assert re.fullmatch(r"10\.32\.3\.0/24 of host[36] is not used: host[36] has it", found.text)
        assert "give one of the two another --block" in found.fix


def test_a_clock_that_is_set_under_a_running_agent(ward: Lab) -> None:
    (found,) = wait_for(ward.hosts[0], "agent", "somebody set the clock forward by 3600 s")
    assert found.level == "warn"
    assert "timedatectl" in found.fix
    assert "somebody set the clock forward by 3600 s" in ward.hosts[0].agent.log.read_text()


def test_where_every_address_is_used(ward: Lab) -> None:
    seven = ward.hosts[6]
    agent = Client(seven.agent.directory / "run" / "tunrouter.sock")
    for number in range(5):  # of eight, the first, the bridge's and the last are nobody's
        agent.ask(ReserveCall(f"container {number}"), Lease)
    (found,) = wait_for(seven, "addresses", "no address is free")
    assert (found.level, found.fix.partition(" ")[0]) == ("fail", "remove")


def test_where_a_majority_is_awaited(ward: Lab) -> None:
    (found,) = wait_for(ward.hosts[3], "addresses", "awaiting consensus")
    assert found.text.startswith("awaiting consensus (quorum: 2, known: 1); until then no new block can be had")
    assert found.fix.startswith("start the other nodes")


def test_who_undoes_what_the_agent_sets_up_again_and_again(ward: Lab) -> None:
    two = ward.hosts[1]
    ends = time.monotonic() + 10
    while not complains(two, "agent", "somebody undoes"):
        assert time.monotonic() < ends
        two.namespace.run("nft", "delete", "table", "inet", "tunrouter", check=False)
        wait_until("it is there again", lambda: "tunrouter" in two.namespace.run("nft", "list", "tables").stdout, 5)
    (found,) = doctor(two).of("agent")
    assert "table inet tunrouter" in found.text
    assert "nft monitor" in found.fix


def test_a_worker_that_was_killed(ward: Lab) -> None:
    three = ward.hosts[2]
    found = snapshot(three)
    assert found is not None
    os.kill(found.workers[0].pid, signal.SIGKILL)
    (finding,) = wait_for(three, "agent", "worker 0 is gone|a worker was replaced")
    assert "the agent's log says why" in finding.fix


def test_a_path_that_carries_less_than_pods_send(ward: Lab) -> None:
    one, two = ward.hosts[:2]
    sender, receiver = one.add_pod("a"), two.add_pod("b")
    ward.fabric.shrink(1300)
    # Who sends nothing is not hurt, so the path is looked at once a minute.
    with Pings(sender, receiver):
        (found,) = [f for f in wait_for(one, "path-mtu", "to host2") if "host2" in f.text]
    assert found.text.startswith("datagrams of 1437 bytes vanish on the way to host2 at 192.0.2.2:6783")
    assert "this host's card takes 1500" in found.text
    assert "1280 arrive, so pods' packets have 1219 bytes there instead of 1376" in found.text
    assert "--mtu 1219" in found.fix


def test_both_ends_of_a_link_that_is_dead_one_way_say_which(ward: Lab) -> None:
    _, two, three, *_ = ward.hosts
    (out,) = [f for f in wait_for(two, "peers", "is lost, while what it sends") if "lost" in f.text]
    assert out.text.startswith("UDP from here to host3 at 192.0.2.3:6783 is lost, while what it sends arrives here; ")
    assert re.search(r"its traffic goes by relay through host[156]$", out.text)
    assert out.fix.startswith("let UDP from 192.0.2.2:6783 to 192.0.2.3:6783 out of this host")
    assert out.level == "warn"
    (back,) = [f for f in wait_for(three, "peers", "is lost, while what we send") if "lost" in f.text]
    assert back.text.startswith("UDP from host2 at 192.0.2.2:6783 to here is lost, while what we send arrives there; ")
    assert back.fix.startswith("let UDP from 192.0.2.2:6783 to 192.0.2.3:6783 out of that host")


def test_nobody_is_accused_of_what_is_not_so(ward: Lab) -> None:
    """Of host2 all that was planted is said by now."""
    found = doctor(ward.hosts[1])
    assert found.of("password") == found.of("addresses") == []
    assert all("host3" in one.text for one in found.of("peers"))
    assert all("on the way to host" in one.text for one in found.of("path-mtu"))
    assert {one.text.partition(":")[0] for one in found.of("blocks")} <= BLOCKS


def test_of_two_alone_the_one_that_hears_says_it_and_the_other_what_it_can(ward: Lab) -> None:
    four, seven = ward.hosts[3], ward.hosts[6]
    (out,) = wait_for(seven, "peers", "is lost")
    assert out.text == "UDP from here to 192.0.2.4:6783 is lost, while what it sends arrives here"
    assert out.fix.startswith("let UDP from this host's port 6783 to 192.0.2.4:6783 out of this host")
    assert out.level == "fail"
    (silent,) = wait_for(four, "peers", "does not answer")
    assert silent.text == "192.0.2.7:6783 does not answer"
    assert "whether ours arrives, tunrouter doctor says there" in silent.fix
    shown = seven.agent.command("status", "connections").stdout
    assert re.search(r"<- 192\.0\.2\.4:6783 +failed +it does not get our answers, though its handshakes arrive", shown)


def test_an_agent_that_does_not_answer_leaves_the_hosts_findings(ward: Lab) -> None:
    six = ward.hosts[5]
    six.namespace.sysctl("net.ipv4.conf.weave.rp_filter", 1)
    pid = six.agent.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        found = doctor(six)
    finally:
        os.kill(pid, signal.SIGCONT)
    (agent,) = found.of("agent")
    assert (found.code, agent.level) == (1, "fail")
    assert agent.text == "the agent did not answer within 3 s, though it is there"
    assert agent.fix.startswith("see its log and top")
    assert found.of("rp_filter")
    assert not found.of("port"), "the port is the agent's"


def test_a_copy_of_a_node_is_named_by_whichever_of_the_two_hears_of_the_other(ward: Lab) -> None:
    three, six = ward.hosts[2], ward.hosts[5]
    six.agent.kill()
    state = six.agent.directory / "state"
    shutil.rmtree(state)
    shutil.copytree(three.agent.directory / "state", state)
    six.agent.restart(wait=False)
    said = wait_until("one of the two knows", lambda: [*of_copies(three), *of_copies(six)], 20, pause=0.1)
    assert {one.level for one in said} == {"fail"}
    assert all("remove its state directory" in one.fix for one in said)


def of_copies(host: Host) -> list[Finding]:
    """Nothing of an agent that has stopped: the copy does, if it hears in time that it is one."""
    with suppress(TunrouterError):
        found = told(Client(host.agent.directory / "run" / "tunrouter.sock").ask(StatusCall(), Snapshot))
        return [one for one in found if "has this node's identity: its state directory was copied" in one.text]
    return []
