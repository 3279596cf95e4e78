"""Which strangers' handshakes are looked at: rates, bounds, and the independence of peers from strangers."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core import bounds
from tunrouter.core.admission import (
    ANSWER_OVER_BUDGET,
    ANSWER_SOURCE_RATE,
    OVER_BUDGET,
    SOURCE_RATE,
    Admission,
    Budget,
    RejectBudget,
    Sources,
    source_of,
)

START = 1_000_000.0


def admitted(admission: Admission, address: str, now: float, times: int) -> int:
    return sum(admission.admit(address, now) == "" for _ in range(times))


def strangers() -> list[str]:
    return [f"198.18.{number >> 8}.{number & 255}" for number in range(bounds.MAX_SOURCES * 2)]


# --- the buckets ------------------------------------------------------------------------------------------------------
@given(
    rate=st.integers(1, 2000),
    burst=st.integers(1, 200),
    now=st.floats(0, 1e9),
    steps=st.lists(st.floats(0, 0.5), min_size=1, max_size=300),
)
def test_a_bucket_never_gives_more_than_burst_and_rate(rate: int, burst: int, now: float, steps: list[float]) -> None:
    budget, start, taken = Budget(rate, burst), now, 0
    for step in steps:
        now += step
        if not budget.empty(now):
            budget.take(now)
            taken += 1
    assert taken <= burst + (now - start) * rate + 1


@given(rate=st.integers(1, 2000), burst=st.integers(1, 200), now=st.floats(0, 1e7))
def test_a_full_bucket_gives_its_burst_at_once_and_refills(rate: int, burst: int, now: float) -> None:
    budget = Budget(rate, burst)
    for _ in range(burst):
        assert not budget.empty(now)
        budget.take(now)
    assert budget.empty(now)
    assert budget.empty(now + 0.9 / rate)
    assert not budget.empty(now + 1.01 / rate)


def test_a_table_of_sources_is_bounded_and_forgets_the_least_recently_used() -> None:
    sources = Sources(rate=1, burst=1, limit=3)
    for source in ("a", "b", "c", "a", "d"):
        sources.take(source, START)
    assert len(sources) == 3
    assert [source for source in "abcd" if sources.empty(source, START)] == ["a", "c", "d"]


# --- strangers --------------------------------------------------------------------------------------------------------
def test_one_source_gets_its_burst_and_then_its_rate() -> None:
    admission = Admission()
    assert admitted(admission, "192.0.2.1", START, 1000) == bounds.FIRST_PER_SOURCE_BURST
    assert admission.admit("192.0.2.1", START) == SOURCE_RATE
    assert admission.admit("192.0.2.2", START) == ""
    flood = (admission.admit("192.0.2.1", START + tick / 20_000) for tick in range(20_000))
    assert sum(verdict == "" for verdict in flood) in range(
        bounds.FIRST_PER_SOURCE_PER_SECOND - 1, bounds.FIRST_PER_SOURCE_PER_SECOND + 1
    )


def test_all_strangers_together_get_the_budget() -> None:
    admission, number, total = Admission(), count(), 0
    for tick in range(20_000):
        address = str(IPv6Address(0x20010DB8 << 96 | next(number) << 64))
        verdict = admission.admit(address, START + tick / 20_000)
        assert verdict in {"", OVER_BUDGET}
        total += verdict == ""
    assert total in range(bounds.FIRST_PER_SECOND, bounds.FIRST_PER_SECOND + bounds.FIRST_BURST + 1)


def test_a_rejected_flood_of_one_source_does_not_spend_the_others_budget() -> None:
    admission = Admission()
    admitted(admission, "192.0.2.1", START, 100_000)
    others = sum(admission.admit(address, START) == "" for address in strangers())
    assert others == bounds.FIRST_BURST - bounds.FIRST_PER_SOURCE_BURST


def test_memory_is_bounded_in_a_flood_of_forged_sources() -> None:
    admission = Admission()
    for tick, address in enumerate(strangers()):
        assert admission.admit(address, START + tick / bounds.FIRST_PER_SECOND) == ""
    assert len(admission._strangers) == bounds.MAX_SOURCES


def test_a_whole_64_of_ipv6_is_one_source_and_the_next_64_another() -> None:
    admission = Admission()
    hosts = [str(IPv6Address(0x20010DB8 << 96 | host)) for host in range(1000)]
    assert sum(admission.admit(host, START) == "" for host in hosts) == bounds.FIRST_PER_SOURCE_BURST
    assert admission.admit("2001:db8:0:1::1", START) == ""


@given(st.integers(0, 2**128 - 1), st.booleans())
def test_sources_of_ipv6_are_its_64(number: int, sparse: bool) -> None:
    # Sparse addresses have runs of zeros at every place, which the text form shortens to `::`.
    if sparse:
        groups = [(number >> 16 * at) & 0xFFFF for at in range(8)]
        number = sum((group if group & 1 else 0) << 16 * at for at, group in enumerate(groups))
    address = IPv6Address(number)
    if address.ipv4_mapped is not None or number >> 32 == 0:
        return
    network = IPv6Network((number >> 64 << 64, 64)).network_address
    assert IPv6Address(source_of(str(address)) + "::") == network


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("::1", "0:0:0:0"),
        ("::", "0:0:0:0"),
        ("2001:db8::", "2001:db8:0:0"),
        ("2001:db8::1:2:3:4:5", "2001:db8:0:1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2"),
        ("fe80::1%eth0.100", "fe80:0:0:0"),
    ],
)
def test_whom_an_address_is_charged_to(address: str, source: str) -> None:
    assert source_of(address) == source


# --- known peers ------------------------------------------------------------------------------------------------------
def test_a_known_peer_is_admitted_while_strangers_flood() -> None:
    admission = Admission()
    admission.know(["192.0.2.7", "2001:db8::7"])
    for address in strangers():
        admission.admit(address, START)
    assert admission.admit("192.0.2.99", START) == OVER_BUDGET
    assert admission.admit("192.0.2.7", START) == ""
    assert admission.admit("2001:db8::7", START) == ""


def test_known_peers_spend_nothing_of_the_strangers() -> None:
    admission = Admission()
    peers = [f"192.0.2.{host}" for host in range(1, 100)]
    admission.know(peers)
    assert sum(admission.admit(peer, START) == "" for peer in peers for _ in range(3)) == bounds.FIRST_BURST
    assert sum(admission.admit(address, START) == "" for address in strangers()) == bounds.FIRST_BURST


def test_a_known_peer_has_a_larger_bucket_but_has_one() -> None:
    admission = Admission()
    admission.know(["192.0.2.7"])
    burst = bounds.FIRST_PER_SOURCE_BURST * bounds.FIRST_KNOWN_FACTOR
    assert admitted(admission, "192.0.2.7", START, burst) == burst
    assert admission.admit("192.0.2.7", START) == SOURCE_RATE
    rate = bounds.FIRST_PER_SOURCE_PER_SECOND * bounds.FIRST_KNOWN_FACTOR
    assert admitted(admission, "192.0.2.7", START + 0.501, rate) == rate // 2


def test_known_peers_in_one_64_do_not_share_a_bucket() -> None:
    admission = Admission()
    admission.know(["2001:db8::1", "2001:db8::2"])
    admitted(admission, "2001:db8::1", START, 100)
    assert admission.admit("2001:db8::1", START) == SOURCE_RATE
    assert admission.admit("2001:db8::2", START) == ""


def test_know_replaces_and_keeps_what_was_spent() -> None:
    admission = Admission()
    admission.know(["192.0.2.7"])
    admitted(admission, "192.0.2.7", START, 1000)
    admission.know(["192.0.2.7", "192.0.2.8"])
    assert admission.admit("192.0.2.7", START) == SOURCE_RATE
    admission.know(["192.0.2.8"])
    assert admitted(admission, "192.0.2.7", START, 100) == bounds.FIRST_PER_SOURCE_BURST


def test_the_set_of_known_addresses_is_bounded() -> None:
    admission = Admission()
    admission.know(str(number) for number in count())
    assert len(admission._known) == bounds.MAX_PEERS + bounds.MAX_TARGETS


# --- answers and rejects that arrive ----------------------------------------------------------------------------------
def answers(admission: Admission, address: str, times: int) -> int:
    return sum(admission.admit_answer(address, START) == "" for _ in range(times))


def test_strangers_answers_share_one_budget_and_spend_nothing_of_first_messages() -> None:
    admission = Admission()
    assert sum(admission.admit_answer(address, START) == "" for address in strangers()) == bounds.ANSWERS_BURST
    assert admission.admit_answer("192.0.2.1", START) == ANSWER_OVER_BUDGET
    assert admission.admit("192.0.2.1", START) == ""
    assert admission.admit_answer("192.0.2.1", START + 1.001 / bounds.ANSWERS_PER_SECOND) == ""


@pytest.mark.parametrize("known", [True, False])
def test_answers_get_their_rate_and_no_more(known: bool) -> None:
    admission = Admission()
    peers = [f"192.0.{number >> 8}.{number & 255}" for number in range(1000)]
    admission.know(peers if known else [])
    burst = bounds.ANSWERS_BURST * (bounds.FIRST_KNOWN_FACTOR if known else 1)
    verdicts = (admission.admit_answer(peers[tick % 1000], START + tick / 10_000) for tick in range(10_000))
    total = sum(verdict == "" for verdict in verdicts)
    assert total in range(bounds.ANSWERS_PER_SECOND, bounds.ANSWERS_PER_SECOND + burst + 1)


def test_strangers_answers_spend_nothing_of_peers_and_no_peer_anothers() -> None:
    admission = Admission()
    admission.know(["192.0.2.7", "192.0.2.8"])
    answers(admission, "192.0.2.1", 10_000)
    burst = bounds.FIRST_PER_SOURCE_BURST * bounds.FIRST_KNOWN_FACTOR
    assert answers(admission, "192.0.2.7", 10_000) == burst
    assert admission.admit_answer("192.0.2.7", START) == ANSWER_SOURCE_RATE
    assert answers(admission, "192.0.2.8", 10_000) == burst


def test_all_peers_answers_together_have_a_budget() -> None:
    admission = Admission()
    peers = [f"192.0.{number >> 8}.{number & 255}" for number in range(1000)]
    admission.know(peers)
    total = sum(admission.admit_answer(peer, START) == "" for peer in peers)
    assert total == bounds.ANSWERS_BURST * bounds.FIRST_KNOWN_FACTOR


# --- rejects that are sent --------------------------------------------------------------------------------------------
def test_one_source_is_told_once_a_second() -> None:
    rejects = RejectBudget()
    assert rejects.allow("192.0.2.1", START)
    assert not rejects.allow("192.0.2.1", START)
    assert not rejects.allow("192.0.2.1", START + 0.99)
    assert rejects.allow("192.0.2.1", START + 1.0)


def test_all_sources_are_told_twenty_times_a_second() -> None:
    rejects = RejectBudget()
    assert sum(rejects.allow(address, START) for address in strangers()) == bounds.REJECTS_PER_SECOND
    assert sum(rejects.allow(address, START + 1.0) for address in strangers()) == bounds.REJECTS_PER_SECOND


def test_the_memory_of_who_was_told_is_bounded() -> None:
    rejects = RejectBudget()
    for tick, address in enumerate(strangers()):
        assert rejects.allow(address, START + tick / bounds.REJECTS_PER_SECOND)
    assert len(rejects._sources) == bounds.MAX_SOURCES


def test_a_refused_source_spends_nothing_of_the_others() -> None:
    rejects = RejectBudget()
    told = sum(rejects.allow("192.0.2.1", START) for _ in range(1000))
    assert told + sum(rejects.allow(address, START) for address in strangers()) == bounds.REJECTS_PER_SECOND
