"""Whoever changes our nftables table is noticed, and nobody else is; what was lost is admitted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.edge.netlink import nft, nftevents
from tunrouter.edge.netlink.nftevents import Changes, Monitor, Reader, Transaction
from tunrouter.edge.netlink.wire import attribute, text

T = TypeVar("T")
Inside = Callable[[Callable[[], T]], T]
TABLE = ("inet", "tunrouter-policy")
TEXT = """
table inet tunrouter-policy {
  set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 10.2.0.1 } }
  map verdicts { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop } }
  counter dropped {}
  chain c { type filter hook forward priority 0; ip saddr vmap @verdicts; }
}
table inet tunrouter-policy2 {
  set s { type ipv4_addr; elements = { 10.0.0.1 } }
  chain c { type filter hook forward priority 0; ip saddr @s drop; }
}
table ip tunrouter-policy {
  chain c { type filter hook forward priority 0; accept; }
}
"""
OURS = (
    "add set inet tunrouter-policy new { type ipv4_addr; }",
    "delete set inet tunrouter-policy new",
    "add element inet tunrouter-policy s { 10.3.0.0/24 }",
    "delete element inet tunrouter-policy s { 10.3.0.0/24 }",
    "delete element inet tunrouter-policy verdicts { 10.0.0.1 : drop }",
    "flush set inet tunrouter-policy s",
    "add rule inet tunrouter-policy c accept",
    "insert rule inet tunrouter-policy c accept",
    "flush chain inet tunrouter-policy c",
    "chain inet tunrouter-policy c { policy drop; }",
    "add chain inet tunrouter-policy new",
    "rename chain inet tunrouter-policy new newer",
    "delete chain inet tunrouter-policy newer",
    "delete counter inet tunrouter-policy dropped",
    "add counter inet tunrouter-policy dropped",
    "table inet tunrouter-policy { flags dormant; }",
    "add rule inet tunrouter-policy c drop; flush table inet tunrouter-policy",
    "flush ruleset inet",
)
OTHERS = (
    "add element inet tunrouter-policy2 s { 10.0.0.2 }",
    "flush set inet tunrouter-policy2 s",
    "flush table inet tunrouter-policy2",
    "delete table inet tunrouter-policy2",
    "flush chain ip tunrouter-policy c",
    "delete table ip tunrouter-policy",
    "add table inet tunrouter",
    "add table bridge tunrouter-policy",
    "delete table inet tunrouter",
)
NOTHING = ("add table inet tunrouter-policy", "add element inet tunrouter-policy s { 10.2.0.1 }")


def elements(first: int, count: int, table: str = "tunrouter-policy") -> str:
    them = ",".join(f"{first}.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(count))
    return f"add element inet {table} big {{ {them} }}\n"


def written(commands: str) -> int:
    """The id of the `nft` that carried them out."""
    process = subprocess.Popen(["nft", "-f", "-"], stdin=subprocess.PIPE)
    process.communicate(commands.encode())
    assert process.returncode == 0, commands
    return process.pid


@pytest.mark.root
def test_every_change_of_the_table_is_one_transaction_and_others_are_none(inside: Inside[None]) -> None:
    def work() -> None:
        with closing(Monitor(*TABLE)) as monitor:
            assert monitor.changes() == Changes((), lost=False)
            process = written(TEXT)
            (first,), lost = monitor.changes()
            assert (first, lost) == (Transaction(nft.generation(), process, "nft"), False)
            assert monitor.changes() == Changes((), lost=False)
            for command in (*OTHERS, *NOTHING):
                written(command)
                assert monitor.changes() == Changes((), lost=False), command
            for command in OURS:
                process = written(command)
                assert monitor.changes() == Changes((Transaction(nft.generation(), process, "nft"),), lost=False), (
                    command
                )
            written(TEXT)
            written("delete table inet tunrouter-policy")
            written("flush ruleset")
            written(TEXT)
            written("flush ruleset")
            assert len(monitor.changes().transactions) == 4, "the flush in between found nothing of ours"

    inside(work)


@pytest.mark.root
def test_changes_without_a_fork_and_by_iptables_are_told_apart(inside: Inside[None]) -> None:
    def work() -> None:
        nft.apply("table inet tunrouter-policy { set s { type ipv4_addr; }; }")
        with closing(Monitor(*TABLE)) as monitor:
            come = nft.Elements(*TABLE, "s", frozenset({bytes((10, 0, 0, 1))}))
            assert nft.replace(come._replace(keys=frozenset()), come, nft.generation())
            (one,), _ = monitor.changes()
            assert (one.generation, one.program) == (nft.generation(), Path("/proc/self/comm").read_text().strip())
            subprocess.run(["iptables-nft", "-A", "FORWARD", "-j", "DROP"], check=True)
            assert not monitor.drain()
            nft.apply("flush ruleset")
            assert monitor.drain()

    inside(work)


@pytest.mark.root
def test_a_transaction_of_many_datagrams_is_one(inside: Inside[None]) -> None:
    def work() -> None:
        nft.apply("table inet tunrouter-policy { set big { type ipv4_addr; }; }")
        with closing(Monitor(*TABLE)) as monitor:
            nft.apply(elements(10, 20_000))
            nft.apply(elements(11, 10))
            transactions, lost = monitor.changes()
            assert [one.generation for one in transactions] == [nft.generation() - 1, nft.generation()]
            assert not lost

    inside(work)


@pytest.mark.root
def test_what_did_not_fit_is_admitted_once(inside: Inside[None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftevents, "BUFFER", 1 << 16)

    def work() -> None:
        nft.apply("table inet tunrouter-policy { set big { type ipv4_addr; }; }")
        with closing(Monitor(*TABLE)) as monitor:
            nft.apply(elements(10, 5_000))
            assert monitor.changes().lost
            assert monitor.changes() == Changes((), lost=False)
            nft.apply(elements(12, 1))
            transactions, lost = monitor.changes()
            assert transactions[-1].generation == nft.generation()
            assert not lost
            nft.apply("flush set inet tunrouter-policy big")
            assert monitor.drain(), "lost is changed, too"

    inside(work)


@pytest.mark.root
@pytest.mark.alone
def test_ten_thousand_events_of_another_table_cost_little(inside: Inside[None]) -> None:
    def work() -> None:
        nft.apply("table inet tunrouter-policy { set s { type ipv4_addr; }; }")
        nft.apply("table inet other { set big { type ipv4_addr; }; }")
        with closing(Monitor(*TABLE)) as monitor:
            nft.apply(elements(10, 10_000, "other"))
            began = time.thread_time()
            assert monitor.changes() == Changes((), lost=False)
            assert time.thread_time() - began < 0.05

    inside(work)


def event(kind: int, table: str, family: int = 1) -> bytes:
    body = bytes((family, 0, 0, 0)) + text(1, table) + attribute(2, b"whatever")
    return (16 + len(body)).to_bytes(4, sys.byteorder) + (kind | 10 << 8).to_bytes(2, sys.byteorder) + bytes(10) + body


NEWGEN = event(15, "")


@given(st.lists(st.sampled_from([event(12, TABLE[1]), event(12, "other"), event(6, TABLE[1], 2), NEWGEN])), st.data())
def test_however_events_are_cut_into_datagrams_the_same_transactions_are_seen(
    events: list[bytes], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(events)))
    reader = Reader(*TABLE)
    seen = [
        *reader.read(b"".join(events[:cut])),
        *reader.read(b"".join(events[cut:])),
    ]
    groups: list[set[bytes]] = [set()]
    for each in events:
        groups[-1].add(each)
        groups += [set()] if each == NEWGEN else []
    assert len(seen) == sum(event(12, TABLE[1]) in group for group in groups[:-1])


@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, 150), st.binary(min_size=1, max_size=4))))
def test_no_bytes_are_too_strange_to_be_read(damage: bytes | tuple[int, bytes]) -> None:
    data = bytearray(event(12, TABLE[1]) + NEWGEN)
    if isinstance(damage, tuple):
        data[damage[0] : damage[0] + len(damage[1])] = damage[1]
    else:
        data += damage
    list(Reader(*TABLE).read(bytes(data)))


@pytest.mark.parametrize("module", ["nft", "nftevents", "conntrack", "nflog"])
def test_whoever_asks_for_this_alone_carries_no_pyroute2(module: str) -> None:
    code = f"import sys, tunrouter.edge.netlink.{module}; sys.exit('pyroute2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
