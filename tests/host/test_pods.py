"""Pods of one host reach each other, the host and the outside, in both bridge modes."""

from __future__ import annotations

import pytest

from tests.host.lab import LISTEN, Lab, Tun, udp

pytestmark = pytest.mark.root


@pytest.mark.parametrize("nf_call", [0, 1])
def test_pods_reach_each_other_the_host_and_the_outside(lab: Lab, nf_call: int) -> None:
    lab.nf_call(nf_call)
    host = lab.host()
    lab.inside(host.apply)
    a, b = lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.1.3")
    assert host.mode == ("hairpin" if nf_call else "isolated")
    assert a.pings("10.32.1.3")
    assert b.pings("10.32.1.2")
    assert a.pings("10.32.1.1")
    assert lab.host_ns.pings("10.32.1.2")
    assert a.pings("192.0.2.2"), "the outside has no route back, so this needs the masquerade"
    assert a.pings("10.32.1.3", "-s", "1348", "-M", "do")


def test_no_redirects_are_sent_though_packets_leave_where_they_came_from(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    a, _ = lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.1.3")
    a.run("ping", "-c5", "-i0.05", "10.32.1.3")
    lines = [line.split()[1:] for line in lab.host_ns.run("cat", "/proc/net/snmp").splitlines() if line[:5] == "Icmp:"]
    counters = dict(zip(*lines, strict=True))
    assert counters["OutRedirects"] == "0"


@pytest.mark.parametrize("everywhere", [0, 1, 2])
def test_the_reverse_path_filter_of_our_devices_is_loose(lab: Lab, everywhere: int) -> None:
    lab.sysctl("net.ipv4.conf.all.rp_filter", everywhere)
    host = lab.host()
    lab.inside(host.apply)
    a = lab.pod(host, "10.32.1.2")
    lab.outside.run("ip", "route", "add", "10.32.0.0/12", "via", "192.0.2.1")
    assert a.pings("10.32.1.1")
    assert lab.outside.pings("10.32.1.2")
    # What comes out of the tunnel from a network that the uplink leads to: replies to a NodePort's caller do.
    lab.host_ns.run("ip", "route", "add", "10.33.9.0/24", "via", "192.0.2.2", "proto", "83")
    tun = Tun(lab)
    listener = lab.host_ns.start("python3", "-c", LISTEN, "9000")
    assert listener.stdout
    assert listener.stdout.readline() == "ready\n"
    tun.write(udp("10.33.9.9", "192.0.2.1", 9000))
    assert "got" in listener.communicate()[0]
    tun.close()
