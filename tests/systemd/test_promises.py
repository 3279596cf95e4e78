"""Promises to who ran Weave, on a booted machine: a boot changes nothing, a stop hurts nobody, nothing is left over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.systemd.machine import SOURCE, Machine
from tests.systemd.node import attach, cni, cni_add, enable, forget, leftovers, ping, pod_of, restarted, snapshot
from tests.systemd.watch import Watch
from tunrouter.bench.namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(1200)]

PAUSE = 1.0
"""Seconds that an established connection of this host may stand still at most: one packet of it was lost, not more."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine() as machine:
        machine.install()
        machine.boot()
        yield machine


@pytest.fixture
def agent(machine: Machine) -> Machine:
    enable(machine)
    return machine


# --- a reboot keeps identity, blocks and addresses -------------------------------------------------------------------
@pytest.mark.parametrize("boot", [Machine.reboot, Machine.crash], ids=["reboot", "power failure"])
def test_after_a_boot_all_is_as_it_was(agent: Machine, boot: Callable[[Machine], None]) -> None:
    stranger = attach(agent, "stranger")
    forget(agent, "stranger")
    before, exposed = snapshot(agent), agent.run("tunrouter", "expose").stdout.strip()
    had = {
        "a": attach(agent, "a"),
        "c1": cni_add(agent, "c1", "c"),
        "web": cni_add(agent, "1", "w", pod_of("x", "web")),
    }
    wish = stranger.rpartition(".")[0] + ".77"
    had["wish"] = attach(agent, "wish", "--ip", wish)
    boot(agent)
    # Nobody waits for the agent: whoever is started at boot asks as soon as there is somebody to ask.
    wait_until(
        "the agent answers", lambda: agent.run("tunrouter", "status", check=False).returncode == 0, 30, pause=0.1
    )
    assert attach(agent, "wish", "--ip", wish) == wish
    others = {attach(agent, "other"), cni_add(agent, "2", "o", pod_of("x", "web-1")), cni_add(agent, "3", "p")}
    assert len(others) == 3
    assert not others & ({exposed} | set(had.values())), "a stranger gets nobody's address"
    assert attach(agent, "a") == had["a"]
    assert cni_add(agent, "c1", "c") == had["c1"]
    assert cni_add(agent, "4", "w", pod_of("x", "web")) == had["web"], "the pod has another sandbox"
    assert agent.run("tunrouter", "expose").stdout.strip() == exposed
    after = snapshot(agent)
    for what in ("name", "id", "nickname", "block"):
        assert after[what] == before[what]
    assert after["host"]["bridge_address"] == before["host"]["bridge_address"]
    assert after["ipam"]["cluster"] == before["ipam"]["cluster"]
    assert after["incarnation"] > before["incarnation"]
    assert all(ping(agent, "a", address) for address in (had["c1"], had["web"], had["wish"], exposed, *others))
    given = re.findall(r"10\.[0-9.]+", agent.run("tunrouter", "ps").stdout)
    assert len(given) == len(set(given)) == 8, "no address twice"
    agent.run("tunrouter", "hide")
    for container, name in (("c1", "c"), ("4", "w"), ("2", "o"), ("3", "p")):
        cni(agent, "DEL", container, name)
    forget(agent, "a", "wish", "other", "c", "w", "o", "p")


def test_a_boot_says_nothing_of_missing_blocks(agent: Machine) -> None:
    said = len(agent.journal())
    agent.run("systemctl", "restart", "tunrouter")
    wait_until("it is ready", lambda: "ready: pods of" in agent.journal()[said:], 10, pause=0.1)
    assert "no block of addresses" not in agent.journal()[said:]


# --- a stop keeps local traffic --------------------------------------------------------------------------------------
@pytest.fixture
def outside(agent: Machine) -> Iterator[str]:
    """A host beyond this one that knows no way back to pods: who reaches it was masqueraded."""
    agent.sh(
        "ip netns add outside; ip link add world type veth peer name eth0 netns outside; "
        "ip address add 198.51.100.1/24 dev world; ip link set world up; "
        "ip -n outside address add 198.51.100.2/24 dev eth0; ip -n outside link set eth0 up"
    )
    yield "198.51.100.2"
    agent.sh("ip link del world; ip netns del outside")


def test_a_stop_a_restart_and_a_crash_hurt_no_traffic_of_this_host(agent: Machine, outside: str) -> None:
    attach(agent, "a")
    address = attach(agent, "b")
    gateway = snapshot(agent)["host"]["bridge_address"].partition("/")[0]
    with Watch(agent) as watch:
        watch.ping("a", address)
        watch.ping("a", gateway)
        watch.ping("a", outside)
        watch.ping("", address)
        watch.stream("a", "b", address)
        watch.stream("", "b", address)
        agent.run("systemctl", "stop", "tunrouter")
        watch.go_on(2.0)
        agent.run("systemctl", "start", "tunrouter")
        watch.go_on(2.0)
        agent.run("systemctl", "restart", "tunrouter")
        watch.go_on(2.0)
        before = agent.show("MainPID")
        agent.run("kill", "-9", before)
        restarted(agent, before, 10)
        watch.go_on(2.0)
        assert watch.lost() == {}
        assert max(watch.pauses()) < PAUSE
    forget(agent, "a", "b")


def test_stopped_for_good_and_asked_nothing_pods_may_come_and_go_by_themselves(agent: Machine) -> None:
    """A pod whose namespace ends while no agent runs takes its port along, and the others stay."""
    attach(agent, "gone")
    attach(agent, "a")
    address = attach(agent, "b")
    agent.run("systemctl", "stop", "tunrouter")
    agent.run("ip", "netns", "del", "gone")
    wait_until("its port is gone", lambda: agent.sh("ip -o link").count("vethwe") == 2, 10, pause=0.1)
    assert ping(agent, "a", address)
    agent.run("systemctl", "start", "tunrouter")
    wait_until("its address is free", lambda: "gone" not in agent.run("tunrouter", "ps").stdout, 10, pause=0.1)
    forget(agent, "a", "b")


# --- nothing is left -------------------------------------------------------------------------------------------------
def test_reset_leaves_nothing_of_a_used_network(agent: Machine, outside: str) -> None:
    attach(agent, "a")
    cni_add(agent, "c1", "c")
    agent.run("tunrouter", "expose")
    assert ping(agent, "a", outside)
    agent.run("tunrouter", "cni", "install")
    agent.run("systemctl", "stop", "tunrouter")
    agent.run("tunrouter", "reset")
    assert leftovers(agent) == []
    assert agent.sh("ls /var/lib/tunrouter/identity.key /etc/cni/net.d/05-tunrouter.conflist")
    assert agent.sh("ls -A /run/tunrouter 2>/dev/null || true") == ""
    for name in ("a", "c"):
        assert agent.sh(f"ip -n {name} -o link | grep -v ' lo:' || true") == ""
        assert agent.sh(f"ip -n {name} route") == ""
        agent.run("ip", "netns", "del", name)
    agent.run("tunrouter", "reset", "--purge")
    places = "/run/tunrouter /var/lib/tunrouter /etc/cni/net.d/05-tunrouter.conflist /opt/cni/bin/tunrouter-cni"
    assert agent.sh(f"ls -d {places} 2>/dev/null || true") == ""


def test_a_machine_is_as_it_was_before_it_was_installed() -> None:
    with Machine() as machine:
        machine.boot()
        machine.sh("iptables -P FORWARD DROP; iptables-legacy -P FORWARD DROP; mkdir -p /etc/cni/net.d /run/netns")
        machine.write("/etc/cni/net.d/05-other.conflist", "{}")
        before = machine_state(machine)
        machine.run("make", "-C", SOURCE, "install-service", seconds=300)
        enable(machine)
        machine.run("tunrouter", "cni", "install", "--cni-exclusive")
        attach(machine, "a")
        address = cni_add(machine, "c1", "c")
        machine.run("tunrouter", "expose")
        assert ping(machine, "a", address)
        wait_until("accepts", lambda: "tunrouter" in machine.run("iptables-legacy-save").stdout, 10, pause=0.1)
        machine.run("env", "PURGE=1", "make", "-C", SOURCE, "uninstall-service")
        machine.sh("ip netns del a; ip netns del c")
        after = machine_state(machine)
        assert (sorted(after - before), sorted(before - after)) == ([], [])


def machine_state(machine: Machine) -> set[str]:
    """Lines that say how the machine is: kernel, files, users, units, processes."""
    commands = {
        "link": "ip -o link | sed 's/^[0-9]*: //'",
        "address": "ip -o address | sed 's/^[0-9]*: //'",
        "route": "ip route show table all; ip -6 route show table all",
        "rule": "ip rule; ip -6 rule",
        "nft": "nft -s list ruleset",
        "iptables": "iptables-nft-save -t filter | sed 's/\\[.*\\]//; /^#/d'",
        "legacy": "iptables-legacy-save | sed 's/\\[.*\\]//; /^#/d'",
        "sysctl": "sysctl -a 2>/dev/null | grep ^net | grep -v nf_conntrack_count",
        "file": f"find / -xdev {UNSEEN} -printf '%y %m %u:%g %p %l\\n'",
        # `groupadd` and `groupdel` keep what was before.
        "sum": f"find /etc /usr /opt /var -xdev {UNSEEN} -type f -not -path '/etc/g*-' -exec md5sum {{}} +",
        "run": "find /run -mindepth 1 -maxdepth 1 -printf '%y %m %p\\n'",
        "unit": "systemctl list-unit-files --no-legend --no-pager | grep -v transient; systemctl --failed --no-legend",
        "process": "ps -eo comm= | grep -vxE 'ps|sh|grep|sort|sed|find|env|nsenter|kworker.*' | sort -u",
    }
    return {f"{kind}: {line}" for kind, command in commands.items() for line in machine.sh(command).splitlines()}


UNSEEN = " ".join(
    f"-not -path '{path}'"
    for path in ("/proc*", "/sys*", "/dev*", "/tmp*", "/run*", "/root*", "/var/log*", "/var/lib/systemd*", "/var/tmp*")
)
"""What changes by itself, or with every command; the checkout is there."""
