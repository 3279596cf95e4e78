"""Ownership of prefixes: accepted ones never overlap, and the outcome does not depend on who came first."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core import seam
from tunrouter.core.record import Block
from tunrouter.core.routes import Announced, Contest, Owner, Routes, parse_blocks
from tunrouter.errors import ProtocolError

RANGE = IPv4Network("10.32.0.0/12")
OWN = IPv4Network("10.32.1.0/24")
OWN_ID = 50


def table(*announcements: tuple[int, str]) -> dict[tuple[bytes, int], int]:
    """What the data plane would hold after these announcements."""
    routes = Routes(RANGE, (Announced(OWN),), OWN_ID)
    held: dict[tuple[bytes, int], int] = {}
    obey(held, routes.start())
    for node, block in announcements:
        obey(held, routes.announce(node, (Announced(IPv4Network(block)),)))
    return held


def obey(held: dict[tuple[bytes, int], int], messages: list[seam.ToWorker]) -> None:
    for message in messages:
        if isinstance(message, seam.Route):
            assert (message.prefix, message.length) not in held
            held[message.prefix, message.length] = message.node
        else:
            assert isinstance(message, seam.Unroute)
            del held[message.prefix, message.length]


def key(block: str) -> tuple[bytes, int]:
    network = IPv4Network(block)
    return network.network_address.packed, network.prefixlen


def test_our_own_block_is_ours_whatever_others_say() -> None:
    assert table((1, "10.32.1.0/24"), (2, "10.32.0.0/16")) == {key("10.32.1.0/24"): seam.SELF}


def test_the_lower_node_id_keeps_its_block_in_any_order() -> None:
    expected = {key("10.32.1.0/24"): seam.SELF, key("10.32.7.0/24"): 3}
    assert table((3, "10.32.7.0/24"), (9, "10.32.7.0/24")) == expected
    assert table((9, "10.32.7.0/24"), (3, "10.32.7.0/24")) == expected


BLOCKS = st.builds(
    lambda at, length: str(IPv4Network((int(RANGE.network_address) + (at << 6), length), strict=False)),
    st.integers(0, 300),
    st.sampled_from((20, 22, 24, 26)),
)


@given(st.dictionaries(st.integers(1, 60).filter(lambda n: n != OWN_ID), BLOCKS, max_size=12), st.randoms())
def test_views_agree_whoever_comes_first(claims: dict[int, str], rng: object) -> None:
    order = list(claims.items())
    first = table(*order)
    rng.shuffle(order)  # type: ignore[attr-defined]
    assert table(*order) == first
    spans = sorted((IPv4Network(key).network_address, IPv4Network(key).broadcast_address) for key in first)
    assert all(one[1] < other[0] for one, other in pairwise(spans))


def test_a_loser_gets_its_block_when_the_winner_goes() -> None:
    routes = Routes(RANGE, (Announced(OWN),), OWN_ID)
    routes.announce(3, (Announced(IPv4Network("10.32.7.0/24")),))
    routes.announce(9, (Announced(IPv4Network("10.32.7.0/24")),))
    assert [(c.loser, c.winner) for c in routes.conflicts] == [(9, 3)]
    held = {key("10.32.7.0/24"): 3}
    obey(held, routes.withdraw(3))
    assert held == {key("10.32.7.0/24"): 9}
    assert routes.conflicts == ()


def claimed(routes: Routes, node: int, version: int) -> None:
    routes.announce(node, (Announced(IPv4Network("10.32.7.0/24"), version),))


def test_the_higher_register_version_wins_before_everything_else() -> None:
    routes = Routes(RANGE, (Announced(OWN),), OWN_ID)
    claimed(routes, 3, 1)
    claimed(routes, 9, 2)
    assert [(c.loser, c.winner) for c in routes.conflicts] == [(3, 9)]
    routes.away(frozenset({9}))
    assert [(c.loser, c.winner) for c in routes.conflicts] == [(3, 9)]


def test_of_equal_versions_one_that_is_there_wins() -> None:
    routes = Routes(RANGE, (Announced(OWN),), OWN_ID)
    claimed(routes, 3, 0)
    claimed(routes, 9, 0)
    held = {key("10.32.7.0/24"): 3}
    obey(held, routes.away(frozenset({3})))
    assert held == {key("10.32.7.0/24"): 9}
    obey(held, routes.away(frozenset({3, 9})))
    assert held == {key("10.32.7.0/24"): 3}


def net(number: int, version: int = 0) -> Announced:
    return Announced(IPv4Network(f"10.32.{number}.0/24"), version)


def test_our_blocks_come_and_go_while_the_node_runs() -> None:
    routes = Routes(RANGE, (), OWN_ID)
    held: dict[tuple[bytes, int], int] = {}
    obey(held, routes.start())
    assert held == {}
    obey(held, routes.announce(3, (net(7, 1), net(8, 1))))
    obey(held, routes.possess((net(1, 4), net(7, 2))))
    assert held == {key("10.32.1.0/24"): seam.SELF, key("10.32.7.0/24"): seam.SELF, key("10.32.8.0/24"): 3}
    assert routes.changed == {OWN_ID, 3}
    assert routes.routed(OWN_ID) == (net(1).block, net(7).block)
    assert routes.possess((net(1, 5), net(7, 2))) == [], "a newer version of the register moves no packet"
    obey(held, routes.possess((net(1, 5),)))
    assert held == {key("10.32.1.0/24"): seam.SELF, key("10.32.7.0/24"): 3, key("10.32.8.0/24"): 3}
    obey(held, routes.possess(()))
    assert held == {key("10.32.7.0/24"): 3, key("10.32.8.0/24"): 3}


@pytest.mark.parametrize(
    ("ours", "theirs", "contested"), [(2, 3, True), (2, 2, False), (2, 1, False), (2, 0, False), (0, 3, False)]
)
def test_a_newer_claim_to_our_block_is_reported_and_takes_nothing(ours: int, theirs: int, contested: bool) -> None:
    routes = Routes(RANGE, (net(1, ours),), OWN_ID)
    held: dict[tuple[bytes, int], int] = {}
    obey(held, routes.start())
    obey(held, routes.announce(3, (net(1, theirs), net(9, 1))))
    assert held == {key("10.32.1.0/24"): seam.SELF, key("10.32.9.0/24"): 3}
    assert routes.against_own == ((Contest(net(1, ours), 3, theirs),) if contested else ())
    assert [(conflict.loser, conflict.static) for conflict in routes.conflicts] == [(3, not (ours and theirs))]
    obey(held, routes.away(frozenset({3})))
    assert bool(routes.against_own) is contested, "who has it may be away"
    obey(held, routes.possess(()))
    assert held == {key("10.32.1.0/24"): 3, key("10.32.9.0/24"): 3}
    assert (routes.against_own, routes.conflicts) == ((), ())


def test_a_node_that_says_a_block_twice_confuses_nobody() -> None:
    routes = Routes(RANGE, (Announced(OWN),), OWN_ID)
    held: dict[tuple[bytes, int], int] = {}
    obey(held, routes.start())
    for blocks in ((net(7), net(7)), (net(6), net(8)), (net(8), net(8), net(9)), ()):
        obey(held, routes.announce(3, blocks))
        assert {place for place, node in held.items() if node == 3} == {key(str(block)) for block, _ in blocks}
        assert held[key(str(OWN))] == seam.SELF


CHANGES = st.lists(
    st.tuples(st.sampled_from((OWN_ID, 1, 2, 60, 61)), st.dictionaries(st.integers(0, 5), st.integers(0, 3))),
    max_size=12,
)


@given(CHANGES)
def test_owners_and_routes_after_any_changes_are_those_of_a_new_table(
    changes: list[tuple[int, dict[int, int]]],
) -> None:
    routes, held = Routes(RANGE, (), OWN_ID), dict[tuple[bytes, int], int]()
    now: dict[int, tuple[Announced, ...]] = {}
    for node, places in changes:
        now[node] = tuple(net(place, version) for place, version in places.items())
        if node == OWN_ID:
            obey(held, routes.possess(now[node]))
        else:
            obey(held, routes.announce(node, now[node]) if places else routes.withdraw(node))
        claims = [(-v, n, routes.place(block)) for n, blocks in now.items() for block, v in blocks if v]
        best = {place: Owner(n, -v) for v, n, place in sorted(claims, reverse=True)}
        assert routes.owners() == best
    again, expected = Routes(RANGE, now.pop(OWN_ID, ()), OWN_ID), dict[tuple[bytes, int], int]()
    obey(expected, again.start())
    for node, blocks in now.items():
        obey(expected, again.announce(node, blocks))
    assert held == expected
    assert (set(routes.conflicts), set(routes.against_own)) == (set(again.conflicts), set(again.against_own))


@pytest.mark.parametrize(
    "block",
    ["192.168.0.0/24", "10.0.0.0/8", "10.32.1.0/25", "10.32.0.0/23"],
)
def test_what_is_no_block_of_the_range_is_refused(block: str) -> None:
    with pytest.raises(ProtocolError):
        parse_blocks((Block(block, 0),), RANGE, 24)
