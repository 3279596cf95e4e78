"""Where there is no direct way: what is under way goes by relay, and directly again as soon as that works."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import combinations, pairwise

import pytest

from tests.sim.internet import Host, Internet
from tunrouter.core import bounds, report, seam
from tunrouter.core.states import State

MARKER = b"for the other pod's eyes"
Cut = set[tuple[seam.Endpoint, seam.Endpoint]]


def cutting(cut: Cut) -> Callable[..., list[tuple[float, bytes]]]:
    def fate(
        rng: random.Random, source: seam.Endpoint, destination: seam.Endpoint, data: bytes
    ) -> list[tuple[float, bytes]]:
        return [] if (source, destination) in cut else [(0.0, data)]

    return fate


class Lab:
    """Hosts that all know the first one; `cut` holds ways that lead nowhere."""

    def __init__(self, internet: Internet, count: int) -> None:
        self.internet = internet
        self.hosts = [internet.host(f"host{number}", number, discovery=True) for number in range(1, count + 1)]
        self.cut: Cut = set()
        internet.fate = cutting(self.cut)
        for host in self.hosts[1:]:
            host.connect(self.hosts[0])
        internet.until(self.meshed, 10)

    def meshed(self) -> bool:
        return all(one.established(other) for one, other in combinations(self.hosts, 2))

    def sever(self, one: Host, other: Host, *, both: bool = True) -> None:
        self.cut.add((one.endpoint, other.endpoint))
        if both:
            self.cut.add((other.endpoint, one.endpoint))

    def gap(self, one: Host, other: Host, seconds: float) -> float:
        """Pings of a pod over so many seconds, each answered; the longest time that none got through and back."""
        longest, since = 0.0, self.internet.now
        for number in range(int(seconds / 0.05)):
            before, answered = len(other.received), len(one.received)
            one.send(str(other.block.network_address + 2), MARKER + b"%d" % number)
            self.internet.run(0.03)
            if len(other.received) > before:
                other.send(str(one.block.network_address + 2), MARKER + b"%d" % number)
            self.internet.run(0.02)
            if len(one.received) > answered:
                longest, since = max(longest, self.internet.now - since), self.internet.now
        return max(longest, self.internet.now - since)


def path(one: Host, other: Host) -> str:
    (row,) = [row for row in one.connections() if row.nickname == other.name]
    return row.path


def loss(one: Host, other: Host) -> float | None:
    (row,) = [row for row in one.connections() if row.nickname == other.name]
    return row.loss


@pytest.fixture
def internet() -> Internet:
    return Internet()


@pytest.fixture
def lab(internet: Internet) -> Lab:
    return Lab(internet, 3)


def test_a_link_that_is_cut_is_gone_around_within_two_seconds(lab: Lab) -> None:
    a, b, c = lab.hosts
    assert path(b, c) == "direct"
    lab.sever(b, c)
    assert lab.gap(b, c, 10) < 2.0
    assert path(b, c) == path(c, b) == "relay through host1"
    assert not any(MARKER in datagram for _, _, datagram in lab.internet.wire)
    assert a.counters["relay_forwarded"] > 100
    assert not a.received


def test_loss_is_that_of_the_path_in_use(lab: Lab) -> None:
    _, b, c = lab.hosts
    lab.internet.run(20)
    assert loss(b, c) == 0.0
    lab.sever(b, c)
    lab.internet.run(5)
    assert path(b, c) == "relay through host1"
    assert loss(b, c) is None
    lab.internet.run(11 * bounds.KEEPALIVE_SECONDS)
    assert loss(b, c) == 0.0


def test_what_was_answered_by_relay_is_no_loss_of_the_direct_path() -> None:
    losses = []
    for seed in range(5):
        lab = Lab(Internet(seed), 3)
        _, b, c = lab.hosts
        lab.internet.run(60)
        lab.sever(b, c)
        lab.internet.run(1.9)
        lab.cut.clear()
        lab.internet.run(10)
        assert path(b, c) == path(c, b) == "direct"
        losses += [loss(b, c) or 0.0, loss(c, b) or 0.0]
    assert 0.0 < max(losses) < 0.06, "those before it was in doubt"


@pytest.mark.parametrize("one_way", [False, True])
def test_the_worst_of_twenty_gaps(one_way: bool) -> None:
    gaps = []
    for seed in range(10):
        lab = Lab(Internet(seed), 3)
        _, b, c = lab.hosts
        lab.internet.run(seed * 0.137)
        lab.sever(b, c, both=not one_way)
        gaps.append(lab.gap(b, c, 6))
        assert path(b, c) == path(c, b) == "relay through host1"
    assert max(gaps) < 2.0


def test_the_direct_way_is_taken_again_when_it_heals(lab: Lab) -> None:
    _, b, c = lab.hosts
    lab.sever(b, c)
    lab.gap(b, c, 90)
    assert path(b, c) == "relay through host1"
    lab.cut.clear()
    lab.internet.until(lambda: path(b, c) == path(c, b) == "direct", 65)
    assert lab.gap(b, c, 2) < 0.2


def test_both_ends_of_a_one_way_link_agree(lab: Lab) -> None:
    _, b, c = lab.hosts
    lab.sever(b, c, both=False)
    assert lab.gap(b, c, 4) < 2.0
    lab.internet.until(lambda: path(b, c) == path(c, b) == "relay through host1", 1.0)
    assert lab.gap(b, c, 10) < 0.2


def test_it_is_sealed_for_both_ways_only_while_in_doubt(lab: Lab) -> None:
    _, b, c = lab.hosts
    lab.sever(b, c)
    lab.internet.until(lambda: b.session(c).state is State.SUSPECT, 2)  # type: ignore[union-attr]
    lab.cut.clear()
    lab.internet.run(4)
    assert path(b, c) == "direct"
    before = b.counters["relay_sent"]
    lab.gap(b, c, 3)
    assert b.counters["relay_sent"] == before


def test_who_is_dead_is_not_taken_for_cut_off(lab: Lab) -> None:
    a, b, c = lab.hosts
    c.kill()
    lab.internet.until(lambda: not a.established(c) and not b.established(c), 4.0)


def test_whoever_cannot_be_reached_directly_is_found_by_relay(internet: Internet) -> None:
    hosts = [internet.host(f"host{number}", number) for number in (1, 2, 3)]
    a, b, c = hosts
    internet.fate = cutting({(b.endpoint, c.endpoint), (c.endpoint, b.endpoint)})
    b.connect(a)
    c.connect(a)
    internet.run(3)
    b.send("10.32.3.2", MARKER)
    internet.until(lambda: MARKER in c.payloads, 3)
    assert path(b, c) == "relay through host1"
    internet.run(1.5)
    assert a.counters["relay_forwarded"] > 0


def test_when_the_relay_dies_another_one_takes_over(internet: Internet) -> None:
    lab = Lab(internet, 4)
    a, b, c, d = lab.hosts
    lab.sever(b, c)
    lab.gap(b, c, 6)
    via = next(host for host in (a, d) if path(b, c) == f"relay through {host.name}")
    via.kill()
    assert lab.gap(b, c, 8) < 2.5
    other = d if via is a else a
    assert path(b, c) == f"relay through {other.name}"


def test_where_no_majority_sees_the_same_all_still_reach_all(internet: Internet) -> None:
    """The majorities ring: each of five lacks one of the others, and none lacks the same."""
    lab = Lab(internet, 5)
    hosts = lab.hosts
    for at, host in enumerate(hosts):
        lab.sever(host, hosts[(at + 2) % 5])
    internet.run(8)
    pairs = [(one, other) for one in hosts for other in hosts if one is not other]
    for one, other in pairs:
        one.send(str(other.block.network_address + 2), MARKER)
    internet.run(3)
    for one, other in pairs:
        one.send(str(other.block.network_address + 2), MARKER + b"again")
    internet.run(1)
    assert [host.payloads.count(MARKER + b"again") for host in hosts] == [4] * 5


def test_a_bridge_carries_what_its_two_sides_say(internet: Internet) -> None:
    """Four hosts in a row: two relays, one behind the other."""
    hosts = [internet.host(f"host{number}", number) for number in (1, 2, 3, 4)]
    cut = {
        (one.endpoint, other.endpoint)
        for at, one in enumerate(hosts)
        for to, other in enumerate(hosts)
        if abs(at - to) > 1
    }
    internet.fate = cutting(cut)
    for one, other in pairwise(hosts):
        one.connect(other)
    internet.run(3)
    hosts[0].send("10.32.4.2", MARKER)
    internet.until(lambda: MARKER in hosts[3].payloads, 3)
    hosts[3].send("10.32.1.2", MARKER)
    internet.until(lambda: MARKER in hosts[0].payloads, 1)
    internet.run(1.5)
    assert all(host.counters["relay_forwarded"] for host in hosts[1:3])


def test_keys_are_renewed_by_relay(lab: Lab) -> None:
    _, b, c = lab.hosts
    lab.sever(b, c)
    lab.internet.run(6)
    lab.gap(b, c, 1)
    made = b.session(c).current.made  # type: ignore[union-attr]
    assert lab.gap(b, c, bounds.REKEY_SECONDS + 15) < 0.2
    assert b.session(c).current.made > made  # type: ignore[union-attr]
    assert path(b, c) == "relay through host1"


def test_the_way_around_may_be_narrower(lab: Lab) -> None:
    _, b, c = lab.hosts
    direct = b.session(c).inner_mtu  # type: ignore[union-attr]
    lab.internet.fate = lambda rng, source, destination, data: (
        [] if (source, destination) in lab.cut or len(data) + 28 > 1470 else [(0.0, data)]
    )
    lab.sever(b, c)
    lab.gap(b, c, 12)
    assert path(b, c) == "relay through host1"
    narrow = b.session(c).inner_mtu  # type: ignore[union-attr]
    assert narrow < direct
    before = len(c.received)
    b.send("10.32.3.2", bytes(narrow - 20))
    lab.internet.run(0.1)
    assert len(c.received) == before + 1


def _routes(host: Host) -> Iterable[str]:
    return [row.path for row in report.routes(host.node)]


def test_status_says_which_way_each_block_goes(lab: Lab) -> None:
    _, b, c = lab.hosts
    lab.sever(b, c)
    lab.gap(b, c, 6)
    assert sorted(_routes(b)) == ["direct", "local", "relay through host1"]
    (row,) = [row for row in b.connections() if row.nickname == c.name]
    assert row.address == "192.0.2.3:6783"
    assert row.reason == "no direct way"
