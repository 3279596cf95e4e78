"""Blocks by Leases: the cluster's API decides, vanishes, comes back, and deletes what we still use."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest

from tests.sim import parliament as parliament_module
from tests.sim.kubernetes import Api
from tests.sim.parliament import Parliament, Seat
from tunrouter.core import bounds
from tunrouter.core.leases import Away, Cut, Gone, Lease, Made, Synced


def cluster(size: int, seed: int = 1) -> tuple[Parliament, Api]:
    parliament = Parliament(size, seed=seed, kubernetes=True)
    assert parliament.api is not None
    return parliament, parliament.api


def ready(parliament: Parliament, seconds: float = 10.0) -> float:
    took = parliament.until(lambda: all(usable(seat) for seat in parliament.alive), seconds)
    parliament.run(1.0)  # it takes a while until everybody has heard of it
    return took


def usable(seat: Seat) -> bool:
    return bool(seat.allocator.addresses.free(seat.parliament.now))


def with_container(seat: Seat, container: str = "web") -> IPv4Address:
    seat.add(container)
    seat.parliament.until(lambda: container in seat.containers, 5)
    return seat.containers[container]


def test_a_single_node_has_a_block_at_once() -> None:
    parliament, api = cluster(1)
    assert ready(parliament) < 1.0
    ((place, lease),) = api.leases.items()
    assert [*parliament.all[0].ipam.own] == [place]
    assert lease.owner == api.nodes[1]


def test_many_start_at_once() -> None:
    """Each with few writes, although the range has hardly more blocks than there are nodes."""
    parliament, api = cluster(50)
    took = ready(parliament)
    assert took < 10
    assert len(api.leases) == 50
    assert max(api.writes.values()) <= 5
    assert max(api.refused.values(), default=0) <= 3


def test_a_lease_is_never_renewed() -> None:
    parliament, api = cluster(3)
    ready(parliament)
    before = dict(api.writes)
    parliament.run(3 * bounds.VERIFY_SECONDS)
    assert api.writes == before


def test_a_lease_that_vanishes_under_pods_is_made_anew() -> None:
    """The Node object is deleted and made again while others ask for blocks."""
    parliament, api = cluster(3)
    ready(parliament)
    victim = parliament.all[1]
    address = with_container(victim)
    (place,) = victim.ipam.own
    api.delete_node(victim.number)
    parliament.run(3.0)
    assert place in api.lost_blocks
    assert place not in api.leases, "no object that nobody owns"
    for number in range(4, 24):
        parliament.join(number)
    parliament.run(5.0)
    assert place not in api.leases, "others leave it alone"
    api.add_node(victim.number)
    parliament.until(lambda: place in api.leases and usable(victim), 5)
    assert api.leases[place].holder == victim.id
    assert api.leases[place].owner == api.nodes[victim.number]
    assert victim.containers == {"web": address}
    assert not victim.fenced
    assert not parliament.violations
    ready(parliament)


def test_nothing_new_is_given_while_the_lease_is_missing() -> None:
    parliament, api = cluster(2)
    ready(parliament)
    victim = parliament.all[0]
    with_container(victim)
    api.delete_node(victim.number)
    parliament.run(3.0)
    ticket = victim.add("late")
    parliament.run(bounds.ALLOCATE_SECONDS + 1)
    assert "late" not in victim.containers
    assert "Node object" in str(victim.answers[ticket])


def test_a_block_without_pods_is_let_go() -> None:
    """And is the last that anybody takes, its former holder included."""
    parliament, api = cluster(2)
    ready(parliament)
    victim = parliament.all[1]
    (before,) = victim.ipam.own
    api.delete_node(victim.number)
    parliament.run(2.0)
    api.add_node(victim.number)
    parliament.until(lambda: usable(victim), 5)
    assert before not in victim.ipam.own


def test_deleted_nodes_blocks_are_free_and_are_taken_last() -> None:
    parliament, api = cluster(58)
    ready(parliament)
    dead = parliament.all[29:]
    theirs = {place for seat in dead for place in seat.ipam.own}
    for seat in dead:
        seat.kill(host=True)
        api.delete_node(seat.number)
    parliament.run(COLLECTED)
    assert not theirs & api.leases.keys(), "nothing of ours has to run for that"
    room = parliament.all[0].ipam.places - 58
    for number in range(61, 61 + room):
        parliament.join(number)
    ready(parliament, 15)
    assert not theirs & api.leases.keys(), "blocks that never had a holder come first"
    late = parliament.join(61 + room)
    parliament.run(30)
    assert not late.ipam.own
    assert "no block" in late.ipam.reason
    for seat in parliament.alive[1:-1]:
        seat.pause(1e6)  # so that there is less to compute
    parliament.until(lambda: usable(late), bounds.LATELY_HELD_SECONDS + 60, step=5)
    assert {*late.ipam.own} <= theirs
    assert not parliament.violations


COLLECTED = 3.0


def go_while_others_come(nodes: int, going: int) -> None:
    """All in a minute; and for each two that go one comes."""
    parliament, api = cluster(nodes, seed=5)
    ready(parliament)
    for seat in parliament.all:
        with_container(seat)
    for seat in parliament.all[:going]:
        seat.kill(host=True)
        api.delete_node(seat.number)
        if seat.number % 2:
            parliament.join(1000 + seat.number)
        parliament.run(60 / going)
    ready(parliament, 15)
    for seat in parliament.alive:
        with_container(seat, "more")
    parliament.run(60)
    assert {lease.owner for lease in api.leases.values()} <= set(api.nodes.values())
    assert not parliament.violations


def test_twenty_go_while_ten_come() -> None:
    go_while_others_come(30, 20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_go_while_fifty_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parliament_module, "NETWORK", IPv4Network("10.32.0.0/16"))
    go_while_others_come(120, 100)


def test_a_hundred_start_at_once_in_a_large_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parliament_module, "NETWORK", IPv4Network("10.32.0.0/16"))
    parliament, api = cluster(100)
    assert ready(parliament) < 10
    assert max(api.writes.values()) <= 3
    assert sum(api.refused.values()) <= 10


def test_the_api_is_away_and_pods_come_and_go() -> None:
    parliament, api = cluster(3)
    ready(parliament)
    api.go_down()
    parliament.run(1800)
    seat = parliament.all[0]
    with_container(seat)
    seat.kill()
    seat.boot()
    with_container(seat, "after the restart")
    assert "web" in seat.containers
    api.come_up()
    parliament.until(lambda: all(own.verified for own in seat.ipam.own.values()), 10)
    assert not parliament.violations


def only_wants(seat: Seat, place: int, patch: pytest.MonkeyPatch) -> None:
    """The next block that it claims is this one."""
    patch.setattr(seat.ipam, "_candidate", lambda now: (None if place in seat.ipam.own else place, True))


def test_what_the_disk_says_is_not_believed_against_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node comes back without the API; its block is another's meanwhile, who is there to say so."""
    parliament, api = cluster(2)
    ready(parliament)
    ghost, heir = parliament.all
    with_container(ghost)
    (place,) = ghost.ipam.own
    ghost.kill(host=True)
    api.delete_node(ghost.number)
    parliament.run(bounds.LATELY_HELD_SECONDS + 30)
    only_wants(heir, place, monkeypatch)
    for number in range(heir.ipam.spare + 8):
        heir.add(f"c{number}")
    parliament.until(lambda: place in heir.ipam.own, 20)
    parliament.run(1)
    api.go_down()
    parliament.partition({ghost.number: 1})
    parliament.run(1)
    ghost.boot()
    ghost.add("new")
    parliament.run(bounds.SETTLE_SECONDS / 2)
    parliament.heal()
    parliament.run(20)
    assert "new" not in ghost.containers
    assert not parliament.violations


def test_who_was_away_too_long_is_fenced(monkeypatch: pytest.MonkeyPatch) -> None:
    parliament, api = cluster(2)
    ready(parliament)
    lost, heir = parliament.all
    address = with_container(lost)
    (place,) = lost.ipam.own
    parliament.partition({lost.number: 1})
    lost.pause(1e9)  # of the API, too
    api.delete_node(lost.number)
    parliament.run(bounds.LATELY_HELD_SECONDS + 30)
    only_wants(heir, place, monkeypatch)
    parliament.excused.update(heir.ipam.block(place))
    for number in range(heir.ipam.spare + 8):
        heir.add(f"c{number}")
    parliament.until(lambda: place in heir.ipam.own, 20)
    parliament.heal()
    lost.resume()
    api.add_node(lost.number)
    api.sync(lost)
    assert parliament.until(lambda: address in lost.fenced, 5) < 1.0


def test_a_lost_disk_costs_no_block() -> None:
    """The Node is the same, so what it owns is ours, and addresses in use are kept."""
    parliament, api = cluster(2)
    ready(parliament)
    seat = parliament.all[0]
    address = with_container(seat)
    (place,) = seat.ipam.own
    seat.kill()
    seat.disk.clear()
    api.leases[place] = api.leases[place]._replace(holder=0xDEAD)  # of the identity that was on that disk
    seat.boot()
    parliament.until(lambda: place in seat.ipam.own and usable(seat), 10)
    assert seat.allocator.addresses.held_by("web", "eth0") == address
    assert not parliament.violations


@pytest.mark.parametrize("seed", range(6))
def test_an_address_has_one_holder_whatever_happens_to_the_api(seed: int) -> None:
    parliament, api = cluster(6, seed=seed)
    rng = parliament.rng
    containers = iter(range(100_000))
    for _ in range(120):
        disturb(parliament, api, rng.choice(parliament.all), rng.randrange(11), f"c{next(containers)}")
        parliament.run(rng.choice((0.0, 0.05, 0.5, 2.0, 5.0)))
    parliament.loss = 0.0
    parliament.heal()
    api.come_up()
    for seat in parliament.all:
        seat.resume()
        if seat.number not in api.nodes:
            api.add_node(seat.number)
        if not seat.alive:
            seat.boot()
    parliament.run(30)
    assert not parliament.violations
    assert all(len(holders) <= 1 for holders in parliament.holders.values())
    assert all(usable(seat) for seat in parliament.alive)


def disturb(parliament: Parliament, api: Api, seat: Seat, what: int, container: str) -> None:
    actions: tuple[Callable[[], object], ...] = (
        lambda: seat.add(container) if seat.alive else None,
        lambda: seat.add(container) if seat.alive else None,
        lambda: seat.drop(next(iter(seat.containers))) if seat.alive and seat.containers else None,
        lambda: seat.kill(written=parliament.rng.randrange(3)),
        lambda: seat.kill(host=True),
        lambda: seat.boot() if not seat.alive else None,
        lambda: api.delete_node(seat.number),
        lambda: api.add_node(seat.number) if seat.number not in api.nodes else None,
        lambda: api.go_down() if api.up else api.come_up(),
        lambda: parliament.partition({one.number: parliament.rng.randrange(2) for one in parliament.all}),
        lambda: setattr(parliament, "loss", parliament.rng.choice((0.0, 0.3))),
    )
    actions[what]()


def test_a_node_that_was_booted_while_the_api_is_away_gives_addresses() -> None:
    parliament, api = cluster(2)
    ready(parliament)
    seat = parliament.all[0]
    with_container(seat)
    seat.kill(host=True)
    api.go_down()
    seat.boot(moved=True)
    with_container(seat, "after the boot")
    assert not parliament.violations


def test_our_node_object_is_seen_late() -> None:
    """After the Leases, by a node whose disk was lost: its pods are not cut off meanwhile."""
    parliament, api = cluster(2)
    ready(parliament)
    seat = parliament.all[0]
    address = with_container(seat)
    (place,) = seat.ipam.own
    seat.kill()
    seat.disk.clear()
    api.leases[place] = api.leases[place]._replace(holder=0xDEAD)
    api.members_late = 8.0
    seat.boot()
    parliament.run(7.0)
    assert not seat.fenced
    parliament.until(lambda: place in seat.ipam.own and usable(seat), 10)
    assert api.leases[place].holder == seat.id, "it is ours by name now"
    assert seat.allocator.addresses.held_by("web", "eth0") == address


def test_a_lonely_node_does_not_take_what_vanished_under_others() -> None:
    """It hears nobody who could tell that the block is in use."""
    parliament, api = cluster(2)
    ready(parliament)
    victim = parliament.all[0]
    address = with_container(victim)
    (place,) = victim.ipam.own
    api.delete_node(victim.number)
    parliament.run(3.0)
    for other in set(range(victim.ipam.places)) - {place}:
        api.leases.setdefault(other, Lease(other, 0xBEEF, 1, f"filler-{other}", api.nodes[2]))
    parliament.partition({9: 1})
    lonely = parliament.join(9)
    parliament.run(20.0)
    assert not lonely.ipam.own
    parliament.heal()
    api.add_node(victim.number)
    parliament.until(lambda: place in api.leases, 5)
    assert api.leases[place].holder == victim.id
    assert victim.containers["web"] == address
    assert not parliament.violations


def test_a_copy_under_another_node_name_uses_nothing_of_the_original() -> None:
    """They do not hear each other; the Lease itself tells."""
    parliament, api = cluster(2)
    ready(parliament)
    original = parliament.all[0]
    with_container(original)
    api.add_node(7)
    copy = parliament.copy(original, number=7)
    parliament.partition({7: 1})
    parliament.run(20.0)
    copy.add("other")
    parliament.run(10.0)
    assert not parliament.violations
    assert not set(copy.ipam.own) & set(original.ipam.own)


def test_two_machines_under_one_node_name_never_share_a_block() -> None:
    parliament, api = cluster(3)
    ready(parliament)
    old = parliament.all[0]
    with_container(old)
    new = parliament.join(9)
    parliament.run(5.0)
    api.nodes[9] = api.nodes[old.number]
    new.kill()
    new.boot()
    for side in ({old.number: 1}, {}):
        parliament.partition(side)
        parliament.run(2 * bounds.VERIFY_SECONDS)
        assert not set(old.ipam.own) & set(new.ipam.own)
    assert not parliament.violations


def test_a_lease_without_an_owner_is_deleted_at_last() -> None:
    parliament, api = cluster(3)
    ready(parliament)
    gone = parliament.all[0]
    (place,) = gone.ipam.own
    gone.kill(host=True)
    api.leases[place] = api.leases[place]._replace(owner="", version=10**6)
    for seat in parliament.all:
        api.sync(seat)
    api.delete_node(gone.number)
    api.collects = False
    parliament.run(bounds.ABANDONED_SECONDS / 2)
    assert place in api.leases
    parliament.run(bounds.ABANDONED_SECONDS)
    assert place not in api.leases


def test_a_block_of_another_length_keeps_newcomers_from_claiming() -> None:
    parliament, api = cluster(1)
    parliament.all[0].hear_api(Cut("10.32.0.0-26"))
    parliament.run(10.0)
    assert "--block-size" in parliament.all[0].ipam.reason
    assert not api.leases
    parliament.all[0].hear_api(Cut(""))
    ready(parliament)


def test_what_was_believed_is_given_up_when_a_peer_contradicts(monkeypatch: pytest.MonkeyPatch) -> None:
    parliament, api = cluster(2)
    ready(parliament)
    ghost, heir = parliament.all
    (place,) = ghost.ipam.own
    ghost.kill(host=True)
    api.delete_node(ghost.number)
    parliament.run(bounds.LATELY_HELD_SECONDS + 30)
    only_wants(heir, place, monkeypatch)
    for number in range(heir.ipam.spare + 8):
        heir.add(f"c{number}")
    parliament.until(lambda: place in heir.ipam.own, 20)
    api.go_down()
    parliament.partition({ghost.number: 1})
    ghost.boot()
    parliament.until(lambda: usable(ghost), 10)
    parliament.heal()
    parliament.run(3)
    ghost.add("new")
    parliament.run(bounds.ALLOCATE_SECONDS + 1)
    assert "new" not in ghost.containers


def test_a_node_that_is_down_for_long_stays_a_member() -> None:
    parliament, api = cluster(2)
    ready(parliament)
    down, other = parliament.all
    (place,) = down.ipam.own
    down.kill(host=True)
    parliament.run(3 * bounds.LATELY_HELD_SECONDS)
    assert other.mesh.knows(down.id)
    assert api.leases[place].holder == down.id
    down.boot()
    ready(parliament)
    assert [*down.ipam.own] == [place]


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_a_node_object_with_two_machines_gives_the_living_ones_block_to_nobody(disk: str) -> None:
    """With its disk kept the other machine looks for no legacy; with its disk lost it sees that the first one lives."""
    parliament, api = cluster(3)
    ready(parliament)
    old = parliament.all[0]
    new = parliament.join(9)
    parliament.run(5.0)
    new.kill()
    api.nodes[9] = api.nodes[old.number]
    if disk == "lost":
        new.disk.clear()
        api.leases = {place: lease for place, lease in api.leases.items() if lease.holder != new.id}
    else:
        parliament.partition({9: 1})
    kept = set(old.ipam.own)
    new.boot()
    parliament.run(bounds.LONELY_SECONDS + 10)
    assert kept
    assert kept <= set(old.ipam.own)
    assert not kept & set(new.ipam.own)


def test_what_a_watch_tells_late_undoes_nothing() -> None:
    parliament, api = cluster(2)
    ready(parliament)
    seat, other = parliament.all
    with_container(seat)
    ((place, lease),) = [(at, one) for at, one in api.leases.items() if one.holder == seat.id]
    before = dict(api.writes)
    seat.hear_api(Made(Lease(place, other.id, lease.version - 1, "an earlier one", api.nodes[other.number])))
    seat.hear_api(Gone(place, "an earlier one"))
    seat.hear_api(Synced(0xC1, (), lease.version - 1))
    parliament.run(2.0)
    assert place in seat.ipam.own
    assert usable(seat)
    assert api.writes == before


def test_pods_of_a_lost_disk_are_not_cut_off_while_peers_are_waited_for() -> None:
    """Also where none is up, and a change that fails is tried again."""
    parliament, api = cluster(2)
    ready(parliament)
    seat, other = parliament.all
    address = with_container(seat)
    (place,) = seat.ipam.own
    seat.kill()
    other.kill()
    seat.disk.clear()
    api.leases[place] = api.leases[place]._replace(holder=0xDEAD)
    seat.boot()
    parliament.run(bounds.LONELY_SECONDS - 1)
    assert not seat.fenced
    api.refuses = True
    parliament.run(10.0)
    assert not seat.fenced
    api.refuses = False
    parliament.until(lambda: place in seat.ipam.own and usable(seat), 90)
    assert api.leases[place].holder == seat.id
    assert seat.allocator.addresses.held_by("web", "eth0") == address


def test_a_lease_that_lost_our_name_is_ours_by_its_owner() -> None:
    parliament, api = cluster(2)
    ready(parliament)
    seat = parliament.all[0]
    with_container(seat)
    (place,) = seat.ipam.own
    api.leases[place] = nameless = api.leases[place]._replace(holder=0, version=10**6)
    for one in parliament.all:
        one.hear_api(Made(nameless))
    parliament.run(5.0)
    assert place in seat.ipam.own
    assert usable(seat)
    assert not any("any more" in line for line in seat.log)


def test_what_is_refused_is_asked_for_ever_more_rarely() -> None:
    """A right is missing, or the namespace: with pods on a block whose Lease has gone, and with no block at all."""
    parliament, api = cluster(1)
    ready(parliament)
    seat = parliament.all[0]
    with_container(seat)
    api.refuses = True
    newcomer = parliament.join(2)
    for place in list(api.leases):
        api._remove(place)
    parliament.run(600.0)
    assert api.writes[seat.number] < 30
    assert api.writes[newcomer.number] < 30
    assert usable(seat), "nobody else gets it either"
    api.refuses = False
    ready(parliament, 90)


def test_the_first_node_of_a_cluster_waits_for_nobody() -> None:
    """Other Nodes there are may never run this network."""
    parliament, api = cluster(1)
    parliament.all[0].kill()
    parliament.all[0].disk.clear()
    api.leases.clear()
    api.served.clear()
    api.add_node(7)
    parliament.all[0].boot()
    assert ready(parliament) < 1.0


def test_a_peer_that_heard_later_of_a_lease_is_believed_while_the_api_is_away() -> None:
    parliament, api = cluster(2)
    ready(parliament)
    seat, other = parliament.all
    ((place, lease),) = [(at, one) for at, one in api.leases.items() if one.holder == other.id]
    leases = seat.allocator.leases
    assert leases is not None
    assert not leases.allows(0xBEEF, place, lease.version + 1)
    seat.hear_api(Away("gone"))
    assert leases.allows(0xBEEF, place, lease.version + 1)
    assert not leases.allows(0xBEEF, place, lease.version)
    assert leases.allows(other.id, place, lease.version)
