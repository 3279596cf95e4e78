"""What the prober says of ways that a firewall of the test's own closes: those, and no others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.policy.probing import PORTS, PROTOCOLS, Cell, Prober, Protocol
from tunrouter.bench.lab import Lab

pytestmark = pytest.mark.root
TABLE = "table inet closed {{ chain input {{ type filter hook input priority 0; {} }}; }}"


@pytest.fixture(scope="module")
def lab() -> Iterator[tuple[Lab, Prober]]:
    with Lab(hosts=3, offloads="off") as lab, Prober({host.name: host.namespace for host in lab.hosts}) as prober:
        yield lab, prober


def cells(lab: Lab) -> set[Cell]:
    return {Cell(one.name, two.address, protocol, port) for one in lab.hosts for two in lab.hosts if one is not two
            for protocol in PROTOCOLS for port in PORTS}  # fmt: skip


def test_every_cell_is_open_where_nothing_is_closed(lab: tuple[Lab, Prober]) -> None:
    found = lab[1].ask(cells(lab[0]))
    assert found.keys() == cells(lab[0])
    assert {(cell.source, seen) for cell, seen in found.items()} == {(host.name, host.address) for host in lab[0].hosts}


def test_what_is_closed_is_found_and_nothing_else(lab: tuple[Lab, Prober]) -> None:
    """Also by a firewall that knows connections, and lets their answers pass."""
    one, two = lab[0].hosts[:2]
    shut: set[tuple[Protocol, int]] = {("TCP", 80), ("UDP", 81), ("SCTP", 81)}
    rules = "".join(f"ip saddr {one.address} {protocol.lower()} dport {port} drop; " for protocol, port in shut)
    two.namespace.run("nft", "-f", "-", stdin=TABLE.format(f"ct state established accept; {rules}"))
    try:
        found = lab[1].ask(cells(lab[0]))
        wrong = lab[1].wrong(dict.fromkeys(cells(lab[0]), True))
    finally:
        two.namespace.run("nft", "delete", "table", "inet", "closed")
    closed = cells(lab[0]) - found.keys()
    assert closed == {Cell(one.name, two.address, *each) for each in shut}
    assert wrong == dict.fromkeys(closed, False)


def test_what_is_lost_is_asked_again(lab: tuple[Lab, Prober]) -> None:
    one, two = lab[0].hosts[:2]
    two.namespace.run("nft", "-f", "-", stdin=TABLE.format(f"ip saddr {one.address} quota until 200 bytes drop;"))
    try:
        assert lab[1].ask(cells(lab[0]), rounds=1).keys() < cells(lab[0])
        assert not lab[1].wrong(dict.fromkeys(cells(lab[0]), True))
    finally:
        two.namespace.run("nft", "delete", "table", "inet", "closed")
