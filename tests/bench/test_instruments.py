"""The instruments between two bare namespaces: what they count is what the interfaces count."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tunrouter.bench import instruments
from tunrouter.bench.contender import End
from tunrouter.bench.lab import Lab
from tunrouter.errors import HostError

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(hosts=2, offloads="off") as lab:
        yield lab


def ends(lab: Lab) -> tuple[End, End]:
    one, two = (End(host.namespace, host.address) for host in lab.hosts)
    return one, two


def counters(end: End) -> tuple[int, int]:
    """Packets that this end's interface has received and sent."""
    said = end.namespace.run("ip", "-s", "link", "show", "dev", "eth0").stdout
    received, sent = re.findall(r"^ +\d+ +(\d+)", said, re.MULTILINE)
    return int(received), int(sent)


@pytest.mark.parametrize("size", [64, 1400])
def test_every_datagram_is_a_packet_of_its_own_and_is_counted_once(lab: Lab, size: int) -> None:
    sender, receiver = ends(lab)
    instruments.send_datagrams(sender, receiver, size=size, rate=100, seconds=0.1)  # neighbours are known from here on
    sent_before, received_before = counters(sender)[1], counters(receiver)[0]
    trial = instruments.send_datagrams(sender, receiver, size=size, rate=40_000, seconds=0.3)
    assert trial.sent > 5_000
    few = 20  # neighbour discovery
    assert 0 <= counters(sender)[1] - sent_before - trial.sent < few
    assert 0 <= counters(receiver)[0] - received_before - trial.received < few


def test_the_rate_is_the_one_asked_for(lab: Lab) -> None:
    """On a busy machine a sender may be late, but never early."""
    rates = [instruments.send_datagrams(*ends(lab), size=64, rate=20_000, seconds=0.3).offered for _ in range(3)]
    assert 15_000 < max(rates) <= 20_100


def test_loss_is_seen(lab: Lab) -> None:
    instruments.send_datagrams(*ends(lab), size=64, rate=100, seconds=0.1)  # neighbour discovery is not to be lost
    lab.fabric.lose(10)
    trial = instruments.send_datagrams(*ends(lab), size=64, rate=20_000, seconds=0.5)
    assert 0.08 < trial.lost < 0.12
    assert lab.fabric.dropped() == pytest.approx(trial.sent - trial.received, abs=20)


def test_a_datagram_is_never_sent_in_fragments(lab: Lab) -> None:
    sender, receiver = ends(lab)
    largest = instruments.largest_payload(sender)
    assert largest == 1472
    assert instruments.send_datagrams(sender, receiver, size=largest, rate=1000, seconds=0.1).received > 0
    with pytest.raises(HostError, match="Message too long"):
        instruments.send_datagrams(sender, receiver, size=largest + 1, rate=1000, seconds=0.1)


def test_round_trips_are_those_of_ping(lab: Lab) -> None:
    times = instruments.round_trips(*ends(lab), size=64, seconds=0.5)
    assert len(times) > 500
    assert times == sorted(times)
    assert 1_000 < times[len(times) // 2] < 5_000_000, "between a microsecond and five milliseconds"


def test_where_nothing_comes_back_it_says_so(lab: Lab) -> None:
    sender, receiver = ends(lab)
    lab.fabric.cut("host1", "host2")
    with pytest.raises(HostError, match=r"no echo came back from 192\.0\.2\.2; \d+ were lost"):
        instruments.round_trips(sender, receiver, size=64, seconds=0.5)


def test_tcp_counts_what_arrived(lab: Lab) -> None:
    sender, receiver = ends(lab)
    one = instruments.tcp(sender, receiver, seconds=1)
    both = instruments.tcp(sender, receiver, "--bidir", seconds=1)
    for stream in (one, both):
        assert stream.mbits * 1e6 / 8 == pytest.approx(stream.bytes, rel=0.2)
    lab.fabric.cut("host1", "host2")
    with pytest.raises(HostError, match="iperf3"):
        instruments.tcp(sender, receiver, "--connect-timeout", "300", seconds=1)
