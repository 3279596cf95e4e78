"""The unit as it is installed, under a real systemd: a Debian 12 is booted for it, and its own tools are asked."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.systemd.machine import SOURCE, Machine
from tests.systemd.node import attach, cni, cni_add, enable, forget, leftovers, ping, restarted, snapshot
from tunrouter.bench.namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(1200)]

MOST = 3.5
"""Of `systemd-analyze security`: 0 is safe, 10 is not."""
DROP_IN = "/run/systemd/system/tunrouter.service.d/test.conf"
WEDGE = "import signal; signal.signal(signal.SIGUSR2, lambda *_: __import__('time').sleep(3600))"
"""In every interpreter of the environment: a signal after which its loop never turns again."""
CAPABILITIES = 1 << 12 | 1 << 13 | 1 << 19 | 1 << 21
"""NET_ADMIN, NET_RAW, SYS_PTRACE and SYS_ADMIN (capabilities(7))."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine() as machine:
        machine.install()
        machine.boot()
        yield machine


@pytest.fixture
def agent(machine: Machine) -> Machine:
    """The machine with its agent running, as after `systemctl enable --now`, and with a block of addresses."""
    enable(machine)
    return machine


def hasten_watchdog(machine: Machine) -> None:
    machine.write(DROP_IN, "[Service]\nWatchdogSec=3s\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "tunrouter")


# --- installing ------------------------------------------------------------------------------------------------------
def test_what_belongs_to_others_is_not_replaced(machine: Machine) -> None:
    for path in ("/opt/tunrouter", "/usr/local/bin/tunrouter"):
        machine.sh(f"mv {path} /root/aside; mkdir {path}; touch {path}/theirs")
        for target in ("install-service", "uninstall-service"):
            done = machine.run("make", "-C", SOURCE, target, check=False)
            assert done.returncode != 0
            assert f"{path} is not what this program made" in done.stderr
        machine.sh(f"rm {path}/theirs; rmdir {path}; mv /root/aside {path}")


def test_without_a_secret_it_does_not_start_and_does_not_try_for_ever(machine: Machine) -> None:
    assert machine.run("systemctl", "is-enabled", "tunrouter", check=False).stdout.strip() == "disabled"
    assert machine.run("systemctl", "start", "tunrouter", check=False).returncode != 0
    assert machine.show("ActiveState") == "failed"
    assert machine.show("ExecMainStatus") == "243"
    assert machine.show("NRestarts") == "0"
    machine.sh("[ -e /run/xtables.lock ]")


def test_systemd_knows_every_key_of_the_units(machine: Machine) -> None:
    done = machine.run("systemd-analyze", "verify", "tunrouter.service")
    assert done.stderr == ""


def test_it_is_active_watched_and_exposed_little(agent: Machine) -> None:
    assert agent.show("ActiveState") == "active"
    assert agent.show("WatchdogUSec") == "20s"
    wait_until("the status line", lambda: re.match(r"pods of 10\.[0-9.]+/24; 0 peers", agent.show("StatusText")), 10)
    said = agent.run("systemd-analyze", "security", "--no-pager", "tunrouter").stdout
    score = re.search(r"exposure level for tunrouter.service: ([0-9.]+)", said)
    assert score is not None
    assert float(score[1]) <= MOST
    status = agent.sh(f"cat /proc/{agent.show('MainPID')}/status")
    bounding = re.search(r"CapBnd:\s*(\w+)", status)
    assert bounding is not None
    assert int(bounding[1], 16) == CAPABILITIES
    assert re.search(r"NoNewPrivs:\s*1", status)


def test_the_secret_is_nowhere_but_where_it_belongs(agent: Machine) -> None:
    agent.run("systemctl", "reload", "tunrouter")
    assert agent.sh("grep -lasFf /etc/tunrouter/password /proc/[0-9]*/cmdline /proc/[0-9]*/environ || true") == ""
    assert not any(secret in agent.journal() for secret in agent.sh("cat /etc/tunrouter/password").split())
    assert snapshot(agent)["encryption"] is True


def test_members_of_the_group_may_ask_and_nobody_else(agent: Machine) -> None:
    group = agent.sh("getent group tunrouter | cut -d: -f3")

    def ask(gid: str, *command: str) -> int:
        user = ("setpriv", "--reuid=65534", f"--regid={gid}", "--clear-groups", "tunrouter")
        return agent.run(*user, *command, check=False).returncode

    assert ask("65534", "status") != 0
    assert ask(group, "status") == 0
    assert ask(group, "connect", "192.0.2.1") == 1


# --- the watchdog ----------------------------------------------------------------------------------------------------
def test_the_watchdog_is_fed(agent: Machine) -> None:
    hasten_watchdog(agent)
    before = agent.show("MainPID")
    fed: set[str] = set()

    def meals() -> bool:
        fed.add(agent.show("WatchdogTimestampMonotonic"))
        return len(fed) >= 5

    wait_until("more meals than one interval has", meals, 20, pause=0.2)
    assert agent.show("MainPID") == before


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR2], ids=["frozen", "wedged"])
def test_an_agent_that_does_not_turn_is_restarted(agent: Machine, number: signal.Signals) -> None:
    agent.write(f"{site_packages(agent)}/wedge.pth", WEDGE)
    hasten_watchdog(agent)
    address = attach(agent, "a")
    name, before, said = snapshot(agent)["name"], agent.show("MainPID"), len(agent.journal())
    agent.signal_agent(number)
    restarted(agent, before, 30)
    journal = agent.journal()[said:]
    assert "Watchdog timeout" in journal
    if number == signal.SIGUSR2:
        assert "Fatal Python error: Aborted" in journal
        assert "in <lambda>" in journal, "where it stood"
    assert snapshot(agent)["name"] == name
    assert address in agent.run("tunrouter", "ps").stdout
    forget(agent, "a")


def site_packages(machine: Machine) -> str:
    return machine.sh("/opt/tunrouter/bin/python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'")


def test_a_killed_agent_is_back_at_once(agent: Machine) -> None:
    before = agent.show("MainPID")
    agent.signal_agent(signal.SIGKILL)
    restarted(agent, before, 10)


# --- what the sandbox must let through -------------------------------------------------------------------------------
def spoil_rules(machine: Machine) -> Callable[[], bool]:
    machine.run("nft", "delete", "table", "inet", "tunrouter")
    return lambda: machine.run("nft", "list", "table", "inet", "tunrouter", check=False).returncode == 0


def spoil_switch(machine: Machine) -> Callable[[], bool]:
    machine.sh("echo 0 >/proc/sys/net/ipv4/conf/weave/rp_filter")
    return lambda: machine.sh("cat /proc/sys/net/ipv4/conf/weave/rp_filter") == "2"


def spoil_device(machine: Machine) -> Callable[[], bool]:
    machine.run("ip", "link", "del", "tunrouter0")
    return lambda: "state UP" in (said := machine.sh("ip link show tunrouter0 || true")) or "UNKNOWN" in said


def spoil_policy(machine: Machine) -> Callable[[], bool]:
    machine.run("iptables", "-P", "FORWARD", "DROP")
    return lambda: "tunrouter" in machine.run("iptables-save").stdout


def spoil_legacy_policy(machine: Machine) -> Callable[[], bool]:
    machine.run("iptables-legacy", "-P", "FORWARD", "DROP")
    return lambda: "tunrouter" in machine.run("iptables-legacy-save").stdout


@pytest.mark.parametrize("spoil", [spoil_rules, spoil_switch, spoil_device, spoil_policy, spoil_legacy_policy])
def test_what_others_change_is_repaired_from_inside_the_sandbox(
    agent: Machine, spoil: Callable[[Machine], Callable[[], bool]]
) -> None:
    wait_until("it is repaired", spoil(agent), 10, pause=0.1)


def test_pods_of_every_kind_are_found_and_given_up(agent: Machine) -> None:
    """A named namespace younger than the agent; processes of root with all rights, of root with none, of a user."""
    kinds = {
        "root": "unshare -n sleep 60",
        "powerless": "unshare -n setpriv --bounding-set -all --inh-caps -all sleep 60",
        "user": "unshare -n setpriv --reuid 65534 --regid 65534 --clear-groups sleep 60",
    }
    addresses = {attach(agent, "late")}
    pids = []
    for how in kinds.values():
        pids.append(agent.sh(f"{how} </dev/null >/dev/null 2>&1 & echo $!"))
        addresses.add(wait_until("its own namespace", lambda: attached(agent, pids[-1]), 10))
    assert len(addresses) == 4
    assert all(ping(agent, "late", address) for address in addresses)
    agent.run("kill", *pids)
    agent.run("ip", "netns", "del", "late")
    wait_until("all addresses are free", lambda: not agent.run("tunrouter", "ps").stdout.count("10."), 10, pause=0.1)


def test_networkd_leaves_our_devices_alone(agent: Machine) -> None:
    everything = "[Match]\nName=*\n\n[Network]\nAddress=198.51.100.1/24\nLinkLocalAddressing=no\n"
    agent.write("/etc/systemd/network/80-everything.network", everything)
    address = attach(agent, "a")
    agent.run("ip", "link", "add", "other", "type", "bridge")
    agent.run("systemctl", "start", "systemd-networkd")
    wait_until("it manages others", lambda: "198.51.100.1" in agent.sh("ip address show other"), 20, pause=0.2)
    networks = {line.split()[1]: line.split()[-1] for line in agent.sh("networkctl --no-legend").splitlines()}
    ours = {name: setup for name, setup in networks.items() if name in ("weave", "tunrouter0") or name[:6] == "vethwe"}
    assert len(ours) == 3
    assert set(ours.values()) == {"unmanaged"}
    addresses = [line.split() for line in agent.sh("ip -o -4 address").splitlines()]
    assert {words[1] for words in addresses if words[3] == "198.51.100.1/24"} == networks.keys() - ours.keys()
    assert address in agent.run("tunrouter", "ps").stdout
    agent.sh("systemctl stop systemd-networkd systemd-networkd.socket; ip link del other")
    forget(agent, "a")


def attached(machine: Machine, pid: str) -> str:
    """Its address; empty as long as the process is still in the machine's own namespace."""
    return machine.run("tunrouter", "attach", pid, check=False).stdout.strip()


def test_the_plugin_is_there_and_its_notes_are_worked_off(agent: Machine) -> None:
    address = cni_add(agent, "c1", "c")
    assert address in agent.run("tunrouter", "ps").stdout
    agent.run("systemctl", "stop", "tunrouter")
    cni(agent, "DEL", "c1", "c")
    assert agent.sh("ls /var/lib/tunrouter/cni").count(".json") == 1
    agent.run("systemctl", "start", "tunrouter")
    wait_until("the note is worked off", lambda: not agent.sh("ls /var/lib/tunrouter/cni"), 10, pause=0.1)
    wait_until("the address is free", lambda: address not in agent.run("tunrouter", "ps").stdout, 10, pause=0.1)
    agent.run("ip", "netns", "del", "c")


# --- reload, stop --------------------------------------------------------------------------------------------
def test_a_reload_rotates_the_secret_and_refuses_what_is_broken(agent: Machine) -> None:
    before = agent.show("MainPID")
    fresh = "(umask 077; (tunrouter genkey; cat password) >password.new); mv password.new password"
    agent.sh(f"cd /etc/tunrouter; {fresh}")
    agent.run("systemctl", "reload", "tunrouter")
    wait_until("both secrets", lambda: snapshot(agent)["secrets"] == 2, 10)
    assert "changed: password" in agent.journal()
    agent.write("/etc/tunrouter/config.toml", "peers = [\n")
    done = agent.run("systemctl", "reload", "tunrouter", check=False)
    assert done.returncode != 0
    assert "not valid TOML" in agent.journal()
    agent.run("kill", "-HUP", before)  # past the check
    wait_until("the refusal", lambda: "the last reload was refused" in agent.show("StatusText"), 10, pause=0.1)
    assert (agent.show("ActiveState"), agent.show("MainPID")) == ("active", before)
    agent.write("/etc/tunrouter/config.toml", 'log_level = "info"\n')
    agent.run("systemctl", "reload", "tunrouter")
    wait_until("all is well", lambda: "refused" not in agent.show("StatusText"), 10, pause=0.1)
    assert snapshot(agent)["secrets"] == 2


def test_a_stop_leaves_local_traffic_and_takes_no_time(agent: Machine) -> None:
    attach(agent, "a")
    address = attach(agent, "b")
    began = time.monotonic()
    agent.run("systemctl", "stop", "tunrouter")
    assert time.monotonic() - began < 10
    assert agent.show("Result") == "success"
    assert ping(agent, "a", address)
    assert agent.sh("ps -eo args | grep '[t]unrouter.agent' || true") == "", "nor is a worker left"
    agent.run("systemctl", "start", "tunrouter")
    assert ping(agent, "a", address)
    assert address in agent.run("tunrouter", "ps").stdout
    forget(agent, "a", "b")


# --- the end ---------------------------------------------------------------------------------------------------------
def test_installing_again_restarts_the_agent_and_keeps_what_operators_wrote(agent: Machine) -> None:
    agent.write("/etc/tunrouter/config.toml", 'log_level = "debug"\n')
    secret, name, pid = agent.sh("cat /etc/tunrouter/password"), snapshot(agent)["name"], agent.show("MainPID")
    done = agent.run("make", "-C", SOURCE, "install-service", seconds=300)
    assert "the agent was restarted" in done.stdout
    assert agent.show("MainPID") != pid
    assert agent.sh("cat /etc/tunrouter/config.toml") == 'log_level = "debug"'
    assert agent.sh("cat /etc/tunrouter/password") == secret
    wait_until("it answers", lambda: snapshot(agent)["block"], 20)
    assert snapshot(agent)["name"] == name
    assert agent.sh("ls -A /opt | sort") == "cni\ntunrouter"


def test_reset_leaves_nothing_in_the_kernel(agent: Machine) -> None:
    attach(agent, "a")
    agent.run("iptables", "-P", "FORWARD", "DROP")
    wait_until("accepts", lambda: "tunrouter" in agent.run("iptables-save").stdout, 10, pause=0.1)
    agent.run("tunrouter", "reset", "--force")
    wait_until("it is over", lambda: agent.show("ActiveState") == "inactive", 10, pause=0.1)
    assert leftovers(agent) == [], "and no new agent has made it again"
    agent.run("ip", "netns", "del", "a")


def test_uninstalling_leaves_the_configuration_and_with_purge_not_even_that(agent: Machine) -> None:
    attach(agent, "a")
    said = agent.run("make", "-C", SOURCE, "uninstall-service").stdout
    assert "kept: /etc/tunrouter and /var/lib/tunrouter" in said
    assert leftovers(agent) == []
    assert agent.run("systemctl", "cat", "tunrouter", check=False).returncode != 0
    look = "find / -xdev -iname '*tunrouter*' -not -path '/root/*' -not -path '/proc/*' -not -path '/var/log/*'"
    assert set(agent.sh(look).split()) == {"/etc/tunrouter", "/var/lib/tunrouter"}
    agent.run("env", "PURGE=1", "make", "-C", SOURCE, "uninstall-service")
    assert agent.sh(look) == ""
    assert "tunrouter" not in agent.sh("cat /etc/group")
