"""What a choice of scenarios sets up, and a real tunnel under the instruments."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from tunrouter.bench import instruments, suite
from tunrouter.bench.contender import End
from tunrouter.bench.suite import NAMES, Options, Suite
from tunrouter.errors import ConfigError, HostError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), ("no-encryption", "mtu-9000")),
        (Options(encryption=False), ("mtu-9000",)),
        (Options(mtu=9000), ("no-encryption",)),
        (Options(scenarios=("tcp-1", "rtt")), ()),
        (Options(scenarios=("tcp-1", "mtu-9000")), ("mtu-9000",)),
    ],
)
def test_only_what_is_needed_is_set_up(options: Options, expected: tuple[str, ...]) -> None:
    assert options.variants() == expected


@pytest.mark.parametrize(
    "options",
    [Options(scenarios=("no-encryption",), encryption=False), Options(scenarios=("mtu-9000",), mtu=9000)],
)
def test_a_variant_that_is_the_rule_is_no_variant(options: Options) -> None:
    with pytest.raises(ConfigError, match=r"all of this run is .*; leave out --scenario"):
        options.check()


def test_unknown_scenarios_are_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=f"scenario 'udp' is not known; choose from {', '.join(NAMES)}"):
        Options(scenarios=("udp",)).check()


def test_root_and_tools_are_asked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match=r"needs root .*; run as root: sudo tunrouter bench"):
        Options().check()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "iperf3" else f"/bin/{tool}")
    with pytest.raises(HostError, match="bench needs iperf3, which is not installed; apt-get install iperf3"):
        Options().check()


def packets_sent(end: End) -> int:
    """By this end's interface."""
    said = end.namespace.run("ip", "-s", "link", "show", "dev", "eth0").stdout
    return int(re.findall(r"^ +\d+ +(\d+)", said, re.MULTILINE)[1])


def datagrams_received(end: End) -> int:
    """By all sockets of this end. Its interface may count fewer: the tunnel joins datagrams on their way in."""
    names, values = (row.split() for row in end.namespace.read("/proc/net/snmp").splitlines() if row.startswith("Udp:"))
    return int(values[names.index("InDatagrams")])


@pytest.mark.root
def test_variants_take_turns_with_the_tunnel_and_their_underlays_carry_what_they_should() -> None:
    with Suite(Options(scenarios=("no-encryption", "memory"), offloads="gro")) as running:
        first, *rest = running.matches(payload=1348)
        assert first.scenario.name == "tcp-1"
        assert [contender.name for contender in first.contenders] == ["tunrouter", "no-encryption"]
        assert [match.scenario.name for match in rest] == ["memory"]
        for variant in running.describe():
            assert variant.encryption == (variant.name == "tunrouter")
            assert 1400 < variant.largest_frame <= variant.mtu == 1500
        sender, receiver = running.tunnels["tunrouter"].ends
        sent, received = packets_sent(sender), datagrams_received(receiver)
        trial = instruments.send_datagrams(sender, receiver, size=64, rate=5_000, seconds=0.5)
        assert trial.received > 500
        assert packets_sent(sender) - sent == pytest.approx(trial.sent, abs=20)
        assert datagrams_received(receiver) - received == trial.received


@pytest.mark.root
def test_an_underlay_that_carries_more_than_it_should_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "largest_frame", lambda _: 1501)
    with (
        Suite(Options(scenarios=("memory",))) as running,
        pytest.raises(HostError, match="a frame of 1501 bytes crossed the underlay, whose MTU is 1500"),
    ):
        running.describe()
