"""`tunrouter reset`: all that is ours goes, and nothing else."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from tests.host.lab import PLAN, Lab
from tunrouter.errors import ConfigError, HostError
from tunrouter.host import reset

pytestmark = pytest.mark.root


@pytest.mark.parametrize("forwarding", [0, 1])
def test_reset_leaves_nothing(lab: Lab, forwarding: int) -> None:
    lab.host_ns.run("sysctl", "-qw", f"net.ipv4.ip_forward={forwarding}")
    lab.host_ns.run("iptables-nft", "-P", "FORWARD", "DROP")
    lab.host_ns.run("iptables-legacy", "-P", "FORWARD", "DROP")
    lab.host_ns.run("ip", "link", "del", PLAN.tun)
    before = lab.state()
    lab.host_ns.run("ip", "tuntap", "add", "mode", "tun", "multi_queue", "vnet_hdr", "name", PLAN.tun)
    lab.host_ns.run("nft", "add table inet tunrouter-policy")
    host = lab.host()
    lab.inside(host.apply)
    lab.pod(host, "10.32.1.2")
    lab.inside(lambda: host.set_path_mtus({IPv4Network("10.32.7.0/24"): 1200}))
    done = lab.inside(reset)
    assert lab.state() == before
    assert "table inet tunrouter-policy" in done
    for word in ("table inet tunrouter", "accepts in FORWARD", "bridge weave", "tun tunrouter0", "route unreachable"):
        assert any(word in line for line in done), (word, done)
    assert lab.inside(reset) == []


def test_reset_does_not_touch_a_device_that_is_no_bridge(lab: Lab) -> None:
    lab.host_ns.run("ip", "link", "add", "weave", "type", "veth")
    with pytest.raises(HostError, match="weave is no bridge"):
        lab.inside(reset)
    host = lab.host()
    with pytest.raises(ConfigError, match="weave exists and is no bridge"):
        lab.inside(host.apply)


def test_reset_leaves_another_networks_bridge_and_what_hangs_on_it(lab: Lab) -> None:
    """As `up` would: one with a port that we did not make. What is ours beside it goes."""
    host = lab.host()
    lab.inside(host.apply)
    lab.pod(host, "10.32.1.2")
    lab.host_ns.run("ip", "link", "set", "weave", "alias", "")
    lab.host_ns.run("ip", "link", "add", "vethwepl0a1b2c3", "master", "weave", "type", "veth")
    done = lab.inside(reset)
    assert "bridge weave was left: it is another network's, with the port vethwepl0a1b2c3" in done
    assert not [line for line in done if line.startswith("bridge weave") and "left" not in line]
    assert "tun tunrouter0" in done
    assert "master weave" in lab.host_ns.run("ip", "link", "show", "vethwepl0a1b2c3")
    lab.host_ns.run("ip", "link", "del", "vethwepl0a1b2c3")
    lab.inside(reset)
    assert lab.host_ns.run("ip", "link", "show", "weave", check=False) == ""


def test_reset_leaves_a_tun_of_anybodys_name_beside_another_networks_bridge(lab: Lab) -> None:
    lab.host_ns.run("ip", "link", "add", "weave", "type", "bridge")
    lab.host_ns.run("ip", "link", "add", "tap7", "master", "weave", "type", "veth")
    lab.host_ns.run("ip", "tuntap", "add", "mode", "tun", "name", "tun7")
    before = lab.state()
    lab.inside(lambda: reset(tun="tun7"))
    assert lab.state() == before


def test_reset_touches_nothing_where_weave_net_runs(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    before = lab.state()
    program = "import socket; s = [socket.create_server(('127.0.0.1', p)) for p in (6783, 6784)]; print('on'); input()"
    weaver = lab.host_ns.start("python3", "-uc", program)
    with weaver:
        assert weaver.stdout is not None
        assert weaver.stdout.readline() == "on\n"
        with pytest.raises(ConfigError, match="Weave Net runs on this host"):
            lab.inside(reset)
        assert lab.state() == before
        weaver.kill()
    lab.inside(reset)
