"""A member that has the password, but not the keys of others, and does its worst to those that have both."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from tests.core.villages import body, local
from tests.dataplane.kernels import REFERENCE
from tests.sim.internet import Host, Internet
from tunrouter.core import bounds, record, report, wire
from tunrouter.core.record import Block, BlocksBody, Record

HEAD = 1 + 32 + 8
"""Bytes of a record before its sequence."""


class Lab:
    """Four that are honest, and one that is not; all are linked with all."""

    def __init__(self) -> None:
        self.internet = Internet()
        self.honest = [self.internet.host(f"n{number}", number, discovery=True) for number in range(1, 5)]
        self.bad = self.internet.host("bad", 9, discovery=True)
        for host in (*self.honest[1:], self.bad):
            host.connect(self.honest[0])
        self.internet.run(10)
        self.victim = self.honest[1]

    def say(self, said: wire.GossipBody) -> None:
        """To the victim, sealed as it should be."""
        session = self.bad.session(self.victim)
        assert session is not None
        session.say(said)
        self.bad.tick()
        self.bad.carry_out(self.bad.node.on_timer(self.internet.now))

    def unharmed(self) -> None:
        """Packets flow between the honest, and what one says reaches the others."""
        one, other = self.honest[2:]
        before = len(other.payloads)
        one.send(str(other.block.network_address + 2), b"still here")
        self.internet.run(0.5)
        assert other.payloads[before:] == [b"still here"]
        news = one.node.mesh.gossip.announce(BlocksBody((Block(str(one.block), 1 + len(other.payloads)),)))
        assert news is not None
        one.carry_out(one.node.on_timer(self.internet.now))
        self.internet.until(lambda: all(self.has(host, news) for host in self.honest), 2)

    @staticmethod
    def has(host: Host, news: Record) -> bool:
        mine = host.node.mesh.gossip.replica.newest(news.key)
        return mine is not None and mine.version >= news.version


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_identities_that_claim_many_workers_take_no_room_from_who_has_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One member is as many nodes as it likes, and every session costs as many lanes as the larger end has workers."""
    for name, lanes in (("MAX_LANES", 300), ("MAX_SESSION_LANES", 200), ("MAX_HALF_OPEN_LANES", 70)):
        monkeypatch.setattr(bounds, name, lanes)
    internet = Internet(kernel=REFERENCE)  # the compiled one has its bounds from when it was compiled
    one, other = internet.host("a", 1), internet.host("b", 2)
    one.connect(other)
    internet.until(lambda: one.established(other), 5)
    claims = [*[bounds.MAX_WORKERS] * 4, 32, 16, 8, 4, 2, *[1] * 4]
    crowd = [internet.host(f"c{number}", 10 + number) for number in range(len(claims))]
    for bad, workers in zip(crowd, claims, strict=True):
        bad.node.local.workers = workers
        bad.connect(other)
        internet.run(0.5)
    for _ in range(13):
        internet.run(10)
        before = len(other.payloads)
        one.send("10.32.2.2", b"still here")
        internet.run(0.1)
        assert other.payloads[before:] == [b"still here"], "keys are renewed, too"
    late = internet.host("late", 3)
    late.connect(other)
    internet.until(lambda: late.established(other) and other.established(late), 5)
    assert other.counters["lanes_full"] > 0
    assert other.counters["seam_refused"] == 0
    assert sum(session.slots.lanes for session in other.node.sessions.values()) <= 200
    assert sum(other.established(bad) for bad in crowd) >= 1


def forged(genuine: Record, sequence: int) -> bytes:
    """What somebody said, as if he had said it again: the signature is of what he said."""
    return genuine.data[:HEAD] + struct.pack(">Q", sequence) + genuine.data[HEAD + 8 :]


def test_words_in_the_mouth_of_another_are_not_believed(lab: Lab) -> None:
    other = lab.honest[3]
    genuine = lab.victim.node.mesh.gossip.replica.get(other.identity.node_id, record.BLOCKS)
    assert genuine is not None
    lab.say(wire.Records((), 7, (forged(genuine, genuine.sequence + 1),)))
    lab.internet.run(1)
    assert lab.victim.counters["gossip_forged"] == 1
    assert lab.victim.node.mesh.gossip.replica.get(other.identity.node_id, record.BLOCKS) is genuine
    assert not any("gossip_forged" in host.counters for host in (lab.honest[0], *lab.honest[2:])), "nor passed on"
    lab.unharmed()


def test_a_claim_to_a_block_that_is_anothers_is_told_to_both_and_takes_nothing(lab: Lab) -> None:
    """Of two that no register decides about the lower id keeps it: who comes with a higher one gets nothing."""
    owner = min(lab.honest, key=lambda host: host.identity.node_id)
    bad = max([*lab.honest, lab.bad], key=lambda host: host.identity.node_id)
    claim = BlocksBody((Block(str(bad.block), 0), Block(str(owner.block), 0)))
    assert bad.node.mesh.gossip.announce(claim) is not None
    bad.carry_out(bad.node.on_timer(lab.internet.now))
    lab.internet.run(2)
    watcher = next(host for host in lab.honest if host not in (owner, bad))
    lost = [row for row in report.routes(watcher.node) if row.conflict]
    assert [row.block for row in lost] == [str(owner.block)]
    assert any("both announce" in line for line in owner.log)
    before = len(owner.payloads)
    watcher.send(str(owner.block.network_address + 2), b"for the owner")
    lab.internet.run(0.5)
    assert owner.payloads[before:] == [b"for the owner"]


def test_rubbish_and_oversize_records_are_counted(lab: Lab) -> None:
    lab.say(wire.Records((), 7, (b"", b"\x03" * 200)))
    lab.say(wire.Records((), 8, (bytes(bounds.MAX_RECORD_BYTES + 1),)))
    lab.say(wire.Records((), 9, (bytes(bounds.MAX_CONTROL_BYTES),)))
    lab.internet.run(1)
    assert lab.victim.counters["gossip_malformed"] == 3
    assert lab.victim.counters["control_malformed"] == 1, "cut off where a control body ends"
    lab.unharmed()


@pytest.mark.parametrize("count", [5_000, pytest.param(1_000_000, marks=[pytest.mark.soak])])
def test_records_without_end_are_bounded_and_counted(lab: Lab, count: int) -> None:
    """Past the data plane's own budget for control: what if it let all of them through?"""
    gossip, now = lab.victim.node.mesh.gossip, lab.internet.now
    bad, own = (
        lab.bad.identity.node_id,
        lab.victim.node.mesh.gossip.replica.get(lab.bad.identity.node_id, record.BLOCKS),
    )
    assert own is not None
    strangers = [record.write(local(seed).identity, 1, 1, body(seed)) for seed in range(100, 400)]
    before, known = dict(lab.victim.node.counters), len(gossip.replica)
    tracemalloc.start()
    for number in range(count // 4):
        stranger = strangers[number % len(strangers)]
        four = (forged(own, number + 10), forged(stranger, number), stranger.data, b"rubbish")
        gossip.hear(bad, wire.Records((), number + 1, four), now)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted = {
        name: value - before.get(name, 0)
        for name, value in lab.victim.node.counters.items()
        if name.startswith("gossip_")
    }
    same = count // 4 - len(strangers)
    assert sum(counted.values()) + len(strangers) + same >= count - len(strangers)
    assert len(gossip.replica) == known + len(strangers)
    assert grown < 8 << 20
    lab.unharmed()
