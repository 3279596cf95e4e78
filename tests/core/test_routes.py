"""Ownership of prefixes: accepted ones never overlap, and the outcome does not depend on who came first."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core import seam
from tunrouter.core.record import Block
from tunrouter.core.routes import Announced, Routes, parse_blocks
from tunrouter.errors import ProtocolError

RANGE = IPv4Network("10.32.0.0/12")
OWN = IPv4Network("10.32.1.0/24")
OWN_ID = 50


def table(*announcements: tuple[int, str]) -> dict[tuple[bytes, int], int]:
    """What the data plane would hold after these announcements."""
    routes = Routes(RANGE, (OWN,), OWN_ID)
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
    assert table((1, "10.32.1.0/24"), (2, "10.32.1.0/24")) == {key("10.32.1.0/24"): seam.SELF}


def test_the_lower_node_id_keeps_its_block_in_any_order() -> None:
    expected = {key("10.32.1.0/24"): seam.SELF, key("10.32.7.0/24"): 3}
    assert table((3, "10.32.7.0/24"), (9, "10.32.7.0/24")) == expected
    assert table((9, "10.32.7.0/24"), (3, "10.32.7.0/24")) == expected


BLOCK = st.integers(0, 6).map(lambda at: IPv4Network((int(RANGE.network_address) + (at << 8), 24)))
CLAIMS = st.lists(st.builds(Announced, BLOCK, st.integers(0, 2)), max_size=4).map(tuple)
"""What one node announces; a hostile one may name a block twice."""
NODES = st.integers(45, 55).filter(lambda node: node != OWN_ID)
EVENTS = st.lists(
    st.tuples(NODES, CLAIMS) | st.tuples(NODES, st.none()) | st.tuples(st.none(), st.frozensets(NODES)), max_size=30
)


def live(routes: Routes, events: list[tuple[int | None, object]]) -> dict[tuple[bytes, int], int]:
    """What the data plane holds after all that: announcements, withdrawals, and who is away."""
    held: dict[tuple[bytes, int], int] = {}
    obey(held, routes.start())
    for node, what in events:
        if node is None:
            obey(held, routes.away(what))  # type: ignore[arg-type]
        elif what is None:
            obey(held, routes.withdraw(node))
        else:
            obey(held, routes.announce(node, what))  # type: ignore[arg-type]
    return held


def expected(claims: dict[int, tuple[Announced, ...]], away: frozenset[int]) -> dict[tuple[bytes, int], int]:
    """The law, block by block."""
    owners = {(OWN.network_address.packed, OWN.prefixlen): seam.SELF}
    for block in {one.block for announced in claims.values() for one in announced} - {OWN}:
        ranks = [
            (-one.version, node in away, node)
            for node, announced in claims.items()
            for one in announced
            if one.block == block
        ]
        owners[block.network_address.packed, block.prefixlen] = min(ranks)[2]
    return owners


@given(EVENTS, st.randoms())
def test_whatever_happened_before_the_last_words_of_all_decide(
    events: list[tuple[int | None, object]], rng: object
) -> None:
    claims: dict[int, tuple[Announced, ...]] = {}
    away: frozenset[int] = frozenset()
    for node, what in events:
        if node is None:
            away = what  # type: ignore[assignment]
        elif what is None:
            claims.pop(node, None)
        else:
            claims[node] = what  # type: ignore[assignment]
    long = Routes(RANGE, (OWN,), OWN_ID)
    assert live(long, events) == expected(claims, away)
    last: list[tuple[int | None, object]] = [*claims.items(), (None, away)]
    rng.shuffle(last)  # type: ignore[attr-defined]
    short = Routes(RANGE, (OWN,), OWN_ID)
    assert live(short, last) == expected(claims, away)
    assert short.conflicts == long.conflicts
    assert short.contested == long.contested
    assert all(short.routed(node) == long.routed(node) for node in (*claims, OWN_ID))
    other = Routes(RANGE, (IPv4Network("10.47.0.0/24"),), 70)
    theirs, ours = live(other, last), live(Routes(RANGE, (OWN,), OWN_ID), last)
    for own in (OWN, *other.own):
        for table in (theirs, ours):
            table.pop(key(str(own)), None)
    assert theirs == ours, "all nodes route all blocks but their own alike"


def test_a_loser_gets_its_block_when_the_winner_goes() -> None:
    routes = Routes(RANGE, (OWN,), OWN_ID)
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
    routes = Routes(RANGE, (OWN,), OWN_ID)
    claimed(routes, 3, 1)
    claimed(routes, 9, 2)
    assert [(c.loser, c.winner) for c in routes.conflicts] == [(3, 9)]
    routes.away(frozenset({9}))
    assert [(c.loser, c.winner) for c in routes.conflicts] == [(3, 9)]


def test_of_equal_versions_one_that_is_there_wins() -> None:
    routes = Routes(RANGE, (OWN,), OWN_ID)
    claimed(routes, 3, 0)
    claimed(routes, 9, 0)
    held = {key("10.32.7.0/24"): 3}
    obey(held, routes.away(frozenset({3})))
    assert held == {key("10.32.7.0/24"): 9}
    obey(held, routes.away(frozenset({3, 9})))
    assert held == {key("10.32.7.0/24"): 3}


@pytest.mark.parametrize(
    "block",
    ["192.168.0.0/24", "10.0.0.0/8", "10.32.1.0/25", "10.32.0.0/23"],
)
def test_what_is_no_block_of_the_range_is_refused(block: str) -> None:
    with pytest.raises(ProtocolError):
        parse_blocks((Block(block, 0),), RANGE, 24)


def test_a_block_that_is_named_twice_takes_nothing_from_others() -> None:
    routes = Routes(RANGE, (OWN,), OWN_ID)
    held: dict[tuple[bytes, int], int] = {}
    obey(held, routes.start())
    twice = Announced(IPv4Network("10.32.7.0/24"))
    obey(held, routes.announce(60, (Announced(IPv4Network("10.32.8.0/24")),)))
    obey(held, routes.announce(3, (twice, twice)))
    obey(held, routes.announce(3, ()))
    obey(held, routes.announce(3, (Announced(IPv4Network("10.32.8.0/24")),)))
    assert held == {key("10.32.1.0/24"): seam.SELF, key("10.32.8.0/24"): 3}
    assert [(c.loser, c.winner) for c in routes.conflicts] == [(60, 3)]
