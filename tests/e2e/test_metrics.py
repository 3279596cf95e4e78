"""Metrics and health of real agents: all that the document names is there, and moves when what it counts happens."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.services import internet
from tunrouter.agent import counted
from tunrouter.bench.agent import CLI, PORT
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import stop, wait_until
from tunrouter.core import bounds, wire

pytestmark = pytest.mark.root

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
ADDRESS = ("127.0.0.1", 6782)
MOVED_SECONDS = 10.0
Scrape = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Move = Callable[[Scrape, Scrape], bool]


def get(host: Host, path: str) -> tuple[int, str]:
    """Status and body."""
    with internet(host.namespace, "tcp") as client:
        client.settimeout(MOVED_SECONDS)
        client.connect(ADDRESS)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        said = b""
        while part := client.recv(1 << 16):
            said += part
    head, _, body = said.decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


def scrape(host: Host) -> Scrape:
    status, text = get(host, "/metrics")
    assert status == 200, text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def series(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


def grown(name: str, by: float = 1, **labels: str) -> Move:
    """It is larger by at least so much; a series that was not there counts from 0."""
    which = series(name, **labels)
    return lambda before, after: after.get(which, float("-inf")) - before.get(which, 0.0) >= by


def now(name: str, value: float, **labels: str) -> Move:
    return lambda before, after: after.get(series(name, **labels)) == value


def wait_moves(host: Host, before: Scrape, *moves: Move, seconds: float = MOVED_SECONDS) -> Scrape:
    """Until all of them have happened since `before`."""

    def moved() -> Scrape | None:
        after = scrape(host)
        return after if all(move(before, after) for move in moves) else None

    return wait_until("what is counted has moved", moved, seconds, pause=0.05)


@pytest.fixture(scope="module")
def lab(secret: str) -> Iterator[Lab]:
    """The first two know each other and have a pod `a` each; the third has no agent."""
    with Lab(hosts=3, offloads="off") as lab:
        lab.start_agents(password=secret, hosts=lab.hosts[:2])
        for host in lab.hosts[:2]:
            host.add_pod("a")
        yield lab


@pytest.fixture
def one(lab: Lab) -> Host:
    return lab.hosts[0]


@pytest.fixture
def two(lab: Lab) -> Host:
    return lab.hosts[1]


def peer_of(host: Host) -> dict[str, str]:
    """Its labels where others speak of it."""
    snapshot = host.agent.snapshot()
    return {"peer": snapshot.name, "nickname": snapshot.nickname}


def test_a_node_that_can_give_pods_their_network_is_healthy_and_ready(one: Host) -> None:
    assert get(one, "/healthz") == (200, "ok\n")
    assert get(one, "/readyz") == (200, "ready\n")
    found = scrape(one)
    assert found[series("tunrouter_ready")] == 1
    assert found[series("tunrouter_build_info", version=one.agent.snapshot().version, kernel="compiled")] == 1
    assert found[series("weave_connections", state="established", type="tun", encryption="yes")] == 1
    assert found[series("tunrouter_neighbours")] == 1
    assert abs(found[series("process_start_time_seconds")] - time.time()) < 300


def test_packets_of_pods_move_the_sums_of_both_ends(one: Host, two: Host) -> None:
    before = scrape(one)
    assert len(one.pods[0].ping(two.pods[0].address, count=20, size=1000)) == 20
    peer = peer_of(two)
    after = wait_moves(
        one,
        before,
        *(grown(f"tunrouter_{way}_packets_total", 20) for way in ("tx", "rx")),
        *(grown(f"tunrouter_{way}_bytes_total", 20 * 1028) for way in ("tx", "rx")),
        *(grown(f"tunrouter_peer_{way}_packets_total", 20, **peer) for way in ("tx", "rx")),
        *(grown(f"tunrouter_peer_{way}_bytes_total", 20 * 1028, **peer) for way in ("tx", "rx")),
        grown("tunrouter_tx_datagrams_total", 20),
        grown("tunrouter_rx_frames_total", 1),
    )
    assert after[series("tunrouter_peer_tx_bytes_total", peer="others", nickname="")] == 0
    assert 0 < after[series("tunrouter_peer_rtt_seconds", **peer)] < 1
    assert after[series("tunrouter_peer_path_mtu_bytes", **peer)] == 1376


def test_what_strangers_send_is_dropped_and_refused_under_its_reason(one: Host, two: Host) -> None:
    before = scrape(one)
    sealed = wire.HEADER.pack(wire.DATA, 0, 0, 0xDEADBEEF, 1) + bytes(100)
    first = wire.HEADER.pack(wire.FIRST, wire.SEALED_MODE, 0, 0, 1)
    first += bytes(wire.FIRST_BYTES[True] - len(first))
    with internet(two.namespace, "udp") as stranger:
        for datagram in (sealed, b"rubbish that is longer than a header", *[first] * 200):
            stranger.sendto(datagram, (one.address, PORT))
    dropped, refused, hit = (
        "tunrouter_dropped_packets_total",
        "tunrouter_refused_handshakes_total",
        "tunrouter_bounds_hit_total",
    )
    wait_moves(
        one,
        before,
        grown(dropped, reason="unknown_index"),
        grown(dropped, reason="malformed"),
        grown(refused, reason="handshake_mismatch"),
        grown(refused, reason="handshake_source_rate"),
        grown(hit, bound="handshake_source_rate"),
    )


def test_a_pod_that_comes_and_goes_moves_addresses(one: Host) -> None:
    before = scrape(one)
    pod = one.add_pod("b")
    after = scrape(one)
    for which, change in {
        series("weave_ips", state="local-used"): 1,
        series("tunrouter_addresses", state="used"): 1,
        series("tunrouter_addresses", state="free"): -1,
        series("tunrouter_attached_pods"): 1,
    }.items():
        assert after[which] - before[which] == change, which
    one.agent.command("detach", str(pod.namespace.path))
    gone = scrape(one)
    assert gone[series("weave_ips", state="local-used")] == before[series("weave_ips", state="local-used")]
    assert gone[series("tunrouter_addresses", state="resting")] == 1


def test_a_worker_that_dies_moves_replacements_and_keys(one: Host) -> None:
    before = scrape(one)
    worker = one.agent.snapshot().workers[0]
    os.kill(worker.pid, signal.SIGKILL)
    after = wait_moves(one, before, grown("tunrouter_worker_restarts_total"), grown("tunrouter_rekeys_total"))
    ended = series("weave_connection_terminations_total")
    assert after[ended] == before[ended], "the session stands"
    assert after[series("tunrouter_worker_resident_memory_bytes", worker="0")] > 1 << 20


def test_rules_that_somebody_flushed_are_repairs(one: Host) -> None:
    before = scrape(one)
    one.namespace.run("nft", "flush", "ruleset")
    wait_moves(one, before, grown("tunrouter_host_repairs_total"))


def test_the_agents_own_life_moves_by_itself(one: Host) -> None:
    before = dict.fromkeys(scrape(one), 0.0)
    wait_moves(
        one,
        before,
        *(grown(f"tunrouter_gossip_{way}_{what}_total") for way in ("tx", "rx") for what in ("messages", "bytes")),
        grown("process_cpu_seconds_total", 0.01),
        grown("process_resident_memory_bytes", 10 << 20),
        grown("process_open_fds", 10),
        grown("tunrouter_worker_cpu_seconds_total", 0.01, worker="0"),
        grown("tunrouter_sessions_opened_total"),
    )
    looks = series("tunrouter_event_loop_lag_seconds_count")
    later = wait_moves(one, scrape(one), grown("tunrouter_event_loop_lag_seconds_count", 2))
    assert later[looks] == later[series("tunrouter_event_loop_lag_seconds_bucket", le="+Inf")]
    assert later[series("tunrouter_event_loop_lag_seconds_bucket", le="0.001")] > 0


def test_a_scrape_has_every_metric_of_the_document_and_no_other(one: Host, two: Host) -> None:
    # The share of loss is known after ten heartbeats.
    found = wait_moves(one, {}, grown("tunrouter_peer_loss_ratio", 0.0, **peer_of(two)), seconds=20)
    scraped = {re.sub(r"(_lag_seconds)_(bucket|sum|count)$", r"\1", name) for name, _ in found}
    document = DOCUMENT.read_text().partition("## Metrics of `weave-npc`")[0]
    names = set(re.findall(r"^\| `((?:weave|tunrouter|process)_\w+)`", document, re.MULTILINE))
    assert scraped == {name for name in names if not name.startswith("tunrouter_kubernetes_")}
    assert len([1 for name, _ in found if name.startswith("tunrouter_peer_rtt")]) == 1 <= bounds.MAX_PEER_SERIES
    shown = {*counted.DROPPED, *counted.RELAYED, *counted.REFUSED, *counted.FAULTS, *counted.EVENTS, *counted.SINGLE}
    assert one.agent.snapshot().counters.keys() <= shown


def test_a_peer_that_goes_moves_connections_and_what_can_be_reached(one: Host, two: Host) -> None:
    before, peer = scrape(one), peer_of(two)
    two.agent.stop()
    gone = wait_moves(
        one,
        before,
        grown("weave_connection_terminations_total"),
        now("weave_connections", 0, state="established", type="tun", encryption="yes"),
        now("tunrouter_sessions", 0, path="direct"),
        now("tunrouter_neighbours", 0),
        now("tunrouter_nodes", 1, state="reachable"),
        now("weave_ipam_unreachable_count", 1),
    )
    assert gone[series("tunrouter_nodes", state="known")] == 2
    assert gone[series("weave_ipam_unreachable_percentage")] == pytest.approx(100 / 4096)
    assert series("tunrouter_peer_rtt_seconds", **peer) not in gone
    assert gone[series("tunrouter_tx_bytes_total")] >= before[series("tunrouter_tx_bytes_total")]
    two.agent.restart()
    wait_moves(one, gone, grown("tunrouter_sessions_opened_total"), now("weave_ipam_unreachable_count", 0))


def test_an_address_in_use_stops_no_agent_and_a_node_without_a_block_is_not_ready(lab: Lab, secret: str) -> None:
    third = lab.hosts[2]
    third.agent.block = ""
    with internet(third.namespace, "tcp") as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(ADDRESS)
        other.listen()
        third.agent.start("--observer", password=secret)
        warnings = third.agent.snapshot().warnings
        assert [warning for warning in warnings if "127.0.0.1:6782: Address already in use" in warning]
    wait_until("it is served", lambda: not third.agent.snapshot().warnings, MOVED_SECONDS, pause=0.05)
    assert get(third, "/healthz") == (200, "ok\n")
    status, why = get(third, "/readyz")
    assert status == 503
    assert why.startswith("this node has no block of addresses yet: ")
    assert scrape(third)[series("tunrouter_ready")] == 0
    third.agent.stop()


def test_a_node_that_founds_a_cluster_becomes_ready_and_containers_without_an_address_wait(
    lab: Lab, secret: str
) -> None:
    third = lab.hosts[2]
    third.agent.command("reset", "--force")
    third.agent.start("--range", "10.32.3.0/29", "--block-size", "29", password=secret)
    wait_until("it is ready", lambda: get(third, "/readyz") == (200, "ready\n"), MOVED_SECONDS, pause=0.05)
    found = scrape(third)
    assert found[series("tunrouter_electors", state="reachable")] == 1
    assert found[series("tunrouter_blocks", state="own")] == 1
    assert found[series("weave_max_ips")] == 8
    for name in "abcde":
        third.add_pod(name)
    status, why = get(third, "/readyz")
    assert (status, why.partition(":")[0]) == (503, "no address is free")
    late = third.make_namespace("f")
    argv = (*CLI, "attach", str(late.namespace.path))
    waiting = third.namespace.spawn(*argv, env=third.agent.environment)
    try:
        wait_moves(third, {}, now("weave_ipam_pending_allocates", 1), now("tunrouter_addresses", 0, state="free"))
    finally:
        stop(waiting)
