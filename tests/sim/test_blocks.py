"""Blocks that come and go while nodes run: announced, routed, contested, of another cluster, of a node that is away."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from tests.sim.internet import Host, Internet, no_larger_than
from tunrouter.core import bounds, record, report
from tunrouter.core.outbox import Own
from tunrouter.core.routes import Announced, Contest, Owner
from tunrouter.errors import ProtocolError


@pytest.fixture
def internet() -> Internet:
    return Internet()


def net(number: int, version: int = 1) -> Announced:
    return Announced(IPv4Network(f"10.32.{number}.0/24"), version)


def two(internet: Internet, one: tuple[Announced, ...], other: tuple[Announced, ...]) -> tuple[Host, Host]:
    a, b = internet.host("a", 1, blocks=one), internet.host("b", 2, blocks=other)
    a.connect(b)
    internet.until(lambda: a.established(b) and b.established(a), 3)
    internet.run(1)
    return a, b


def reaches(internet: Internet, sender: Host, receiver: Host, source: str, destination: str) -> bool:
    payload = f"{source} to {destination} {len(receiver.payloads)}".encode()
    sender.send(destination, payload, source=source)
    internet.run(0.2)
    return payload in receiver.payloads


def test_nodes_without_blocks_meet_and_get_them_later(internet: Internet) -> None:
    a, b = two(internet, (), ())
    assert (a.own, b.own) == ((), ())
    assert not reaches(internet, a, b, "10.32.1.2", "10.32.2.2")
    a.take(net(1))
    b.take(net(2), net(20))
    internet.run(1)
    assert b.own == (net(2).block, net(20).block)
    for destination in ("10.32.2.2", "10.32.20.9"):
        assert reaches(internet, a, b, "10.32.1.2", destination)
        assert reaches(internet, b, a, destination, "10.32.1.2")
    b.take(net(20, 3))
    internet.run(1)
    assert not reaches(internet, a, b, "10.32.1.2", "10.32.2.2")
    assert not reaches(internet, b, a, "10.32.2.2", "10.32.1.2"), "it is not the sender's any more"
    assert reaches(internet, b, a, "10.32.20.9", "10.32.1.2")


def test_who_restarts_says_its_blocks_in_the_handshake(internet: Internet) -> None:
    a, b = two(internet, (), ())
    a.take(net(1))
    b.take(net(2), net(20))
    assert record.read(b.node.local.blocks_record).body == b.node.mesh.gossip.replica.body(
        b.identity.node_id, record.BLOCKS
    )
    b.kill()
    internet.run(5)
    b.boot(a)
    internet.until(lambda: a.established(b), 3)
    assert b.own == (net(2).block, net(20).block)
    assert reaches(internet, a, b, "10.32.1.2", "10.32.20.9")


def test_the_host_hears_of_other_blocks_and_not_of_other_versions(internet: Internet) -> None:
    a = internet.host("a", 1, blocks=(net(1),))
    assert a.own == (net(1).block,)
    assert Own((net(1).block,)) not in a.node.own((net(1, 2),), internet.now)
    assert Own((net(3).block, net(1).block)) in a.node.own((net(3, 1), net(1, 2)), internet.now)
    assert Own(()) in a.node.own((), internet.now)


def test_more_blocks_than_a_record_holds_are_refused_whole(internet: Internet) -> None:
    a = internet.host("a", 1, blocks=(net(1),))
    for blocks in (
        tuple(net(n) for n in range(bounds.MAX_BLOCKS_ANNOUNCED + 1)),
        (Announced(IPv4Network("10.32.1.0/25"), 1),),
        (Announced(IPv4Network("192.168.1.0/24"), 1),),
    ):
        with pytest.raises(ProtocolError):
            a.node.own(blocks, internet.now)
        assert a.node.routes.own == (net(1),)


def test_a_block_that_changes_hands_takes_its_path_mtu_along(internet: Internet) -> None:
    internet.fate = no_larger_than(1300)
    a, b = two(internet, (net(1),), (net(2), net(20)))
    internet.until(lambda: a.kernel_mtus == {net(2).block: 1280 - 61, net(20).block: 1280 - 61}, 10)
    b.take(net(2))
    a.take(net(1), net(20, 2))
    internet.until(lambda: a.kernel_mtus == {net(2).block: 1280 - 61}, 2)
    a.take(net(1))
    b.take(net(2), net(20, 3))
    internet.until(lambda: a.kernel_mtus == {net(2).block: 1280 - 61, net(20).block: 1280 - 61}, 2)


def test_the_owner_hears_of_a_newer_claim_and_keeps_its_block_until_it_knows(internet: Internet) -> None:
    a, b = two(internet, (net(1), net(7, 1)), (net(2),))
    b.take(net(2), net(7, 2))
    internet.run(1)
    claim = Contest(net(7, 1), b.identity.node_id, 2)
    assert [host.node.routes.against_own for host in (a, b)] == [(claim,), ()]
    assert net(7).block in a.node.routes.routed(a.identity.node_id)
    assert any("both announce 10.32.7.0/24; its register will decide" in line for line in a.log)
    a.take(net(1))
    internet.run(1)
    assert not a.node.routes.against_own
    assert reaches(internet, a, b, "10.32.1.2", "10.32.7.7")


def test_all_know_who_owns_what(internet: Internet) -> None:
    a, b = two(internet, (net(1, 4),), (net(2, 5), net(3, 0)))
    assert (
        a.node.mesh.owners()
        == b.node.mesh.owners()
        == {
            1: Owner(a.identity.node_id, 4),
            2: Owner(b.identity.node_id, 5),
        }
    ), "what the operator gave is in no register"


@pytest.mark.parametrize(("ours", "theirs", "routed"), [(7, 8, False), (7, 7, True), (0, 8, True), (7, 0, True)])
def test_blocks_of_another_cluster_are_not_routed(internet: Internet, ours: int, theirs: int, routed: bool) -> None:
    a = internet.host("a", 1, blocks=(net(1),), cluster=ours << 60)
    b = internet.host("b", 2, blocks=(net(2),), cluster=theirs << 60)
    a.connect(b)
    internet.run(3)
    refused = f"belongs to cluster {theirs}0000000, ours is {ours}0000000"
    for host, other in ((a, b), (b, a)):
        assert host.established(other) is routed
        assert bool(host.node.routes.routed(other.identity.node_id)) is routed
        assert (2 in a.node.mesh.owners()) is routed
    assert (refused in a.connections()[0].reason) is not routed
    assert any(refused in line for line in a.log) is not routed


def test_a_cluster_that_becomes_known_decides_about_what_was_announced(internet: Internet) -> None:
    a, b = two(internet, (net(1),), (net(2),))
    a.node.mesh.belong(5 << 60)
    a.carry_out(a.node.on_timer(internet.now))
    internet.run(1)
    assert b.node.routes.routed(a.identity.node_id) == (net(1).block,)
    b.node.mesh.belong(6 << 60)
    b.carry_out(b.node.on_timer(internet.now))
    internet.run(1)
    for host, other in ((a, b), (b, a)):
        assert host.node.routes.routed(other.identity.node_id) == ()
        assert other.identity.node_id in host.node.mesh.refused
    b.node.mesh.belong(5 << 60)
    b.carry_out(b.node.on_timer(internet.now))
    internet.run(1)
    for host, other in ((a, b), (b, a)):
        assert host.node.routes.routed(other.identity.node_id) == other.own
        assert host.node.mesh.refused == {}


def gone(internet: Internet, *peers: Host) -> None:
    """Longer than a day, in the eyes of those that stay."""
    for peer in peers:
        peer.kill()
    internet.run(bounds.IDLE_CLOSE_SECONDS + bounds.FORGET_SECONDS + 4 * bounds.SWEEP_SECONDS)


def test_who_has_blocks_of_registers_is_never_forgotten(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "FORGET_SECONDS", 200.0)
    a = internet.host("a", 1, blocks=())
    b, static = internet.host("b", 2, blocks=(net(2),)), internet.host("c", 3)
    b.connect(a)
    static.connect(a)
    internet.run(5)
    gone(internet, b, static)
    assert not a.node.sessions
    assert a.node.mesh.nodes == (b.identity.node_id,)
    assert a.node.mesh.owners() == {2: Owner(b.identity.node_id, 1)}
    assert [row.block for row in report.routes(a.node)] == ["10.32.2.0/24"]


def test_where_there_is_no_room_they_are_forgotten_last(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    a = internet.host("a", 1, blocks=())
    early, late = (internet.host(f"b{number}", number, blocks=(net(number),)) for number in (2, 3))
    static = internet.host("c", 4)
    for host in (early, late, static):
        host.connect(a)
        internet.run(2)
    for host in (early, late, static):
        host.kill()
        internet.run(2 * bounds.SWEEP_SECONDS)
    monkeypatch.setattr(bounds, "MAX_PEERS", 4)
    internet.run(bounds.SWEEP_SECONDS)
    assert set(a.node.mesh.nodes) == {early.identity.node_id, late.identity.node_id}, "though they are gone for longer"
    newcomer = internet.host("d", 5, blocks=(net(5),))
    newcomer.connect(a)
    internet.run(2 * bounds.SWEEP_SECONDS)
    assert a.node.mesh.owners() == {3: Owner(late.identity.node_id, 1), 5: Owner(newcomer.identity.node_id, 1)}


def test_nodes_of_another_cluster_that_others_told_of_are_not_dialled_for_ever(internet: Internet) -> None:
    """They know of each other by one that belonged to neither; then that one joins."""
    ours = [internet.host(f"a{n}", n, blocks=(net(n),), cluster=7 << 60) for n in (1, 2, 3)]
    theirs = [internet.host(f"b{n}", n, blocks=(net(n),), cluster=8 << 60) for n in (4, 5, 6)]
    between = internet.host("c", 7, blocks=(net(7),), cluster=0)
    for host in (*ours, *theirs):
        host.connect(between)
    internet.run(5)
    assert all(len(host.node.mesh.nodes) == 6 for host in (*ours, *theirs))
    between.node.mesh.belong(7 << 60)
    between.carry_out(between.node.on_timer(internet.now))
    internet.run(60)
    for host in (*ours, *theirs):
        assert len(host.node.dials.all()) <= 4
