"""Metrics of a snapshot: what each says, that no counter is without one, and that the documentation has all of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.agent.snapshots import NEIGHBOUR, SNAPSHOT, B
from tunrouter.agent import barrier, counted
from tunrouter.agent.metrics import OTHERS, TABLE, families
from tunrouter.core import admission, bounds, shares
from tunrouter.core.replica import Verdict
from tunrouter.core.status import Connection, Kubernetes, Policy, Snapshot
from tunrouter.dataplane.reference import COUNTERS
from tunrouter.edge.metrics import Distribution
from tunrouter.npc import metrics as npc

ROOT = Path(__file__).parent.parent.parent
AGENT, _, NPC = (ROOT / "docs" / "metrics.md").read_text().partition("## Metrics of `weave-npc`\n")
"""What the document says of each of the two processes."""
Series = dict[tuple[str, ...], float | Distribution]
SETS = {
    "tunrouter_dropped_packets_total": (counted.DROPPED, "drop_"),
    "tunrouter_relayed_datagrams_total": (counted.RELAYED, "relay_"),
    "tunrouter_refused_handshakes_total": (counted.REFUSED, ""),
    "tunrouter_faults_total": (counted.FAULTS, ""),
    "tunrouter_events_total": (counted.EVENTS, ""),
}


def shown(snapshot: Snapshot) -> dict[str, Series]:
    """All metrics, and that no series is there twice."""
    found = {}
    for family in families(snapshot):
        samples = list(family.samples)
        found[family.name] = dict(samples)
        assert len(found[family.name]) == len(samples), family.name
        assert all(len(labels) == len(family.labels) for labels, _ in samples), family.name
    return found


def changed(**fields: object) -> Snapshot:
    return msgspec.structs.replace(SNAPSHOT, **fields)


# --- what each says --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "series"),
    [
        (
            "weave_connections",
            {
                ("established", "tun", "yes"): 2,
                ("retrying", "", ""): 1,
                ("failed", "", ""): 0,
                ("connecting", "", ""): 0,
            },
        ),
        ("weave_connection_terminations_total", {(): 0}),
        ("weave_ips", {("local-used",): 4}),
        ("weave_max_ips", {(): 1 << 20}),
        ("weave_ipam_unreachable_count", {(): 1}),
        ("weave_ipam_unreachable_percentage", {(): 25.0}),
        ("weave_ipam_pending_allocates", {(): 1}),
        ("weave_ipam_pending_claims", {(): 3}),
        ("tunrouter_tx_packets_total", {(): 15}),
        ("tunrouter_tx_bytes_total", {(): 1500}),
        ("tunrouter_rx_packets_total", {(): 7}),
        ("tunrouter_rx_bytes_total", {(): 900}),
        ("tunrouter_peer_tx_packets_total", {(B, "host-2"): 12, (OTHERS, ""): 3}),
        ("tunrouter_peer_tx_bytes_total", {(B, "host-2"): 1200, (OTHERS, ""): 300}),
        ("tunrouter_peer_rx_packets_total", {(B, "host-2"): 7, (OTHERS, ""): 0}),
        ("tunrouter_peer_rx_bytes_total", {(B, "host-2"): 900, (OTHERS, ""): 0}),
        ("tunrouter_peer_rtt_seconds", {(B, "host-2"): 0.004}),
        ("tunrouter_peer_loss_ratio", {(B, "host-2"): 0.01}),
        ("tunrouter_peer_path_mtu_bytes", {(B, "host-2"): 1376}),
        ("tunrouter_sessions", {("direct",): 1, ("relay",): 1}),
        ("tunrouter_rekeys_total", {(): 8}),
        ("tunrouter_nodes", {("known",): 3, ("reachable",): 2}),
        ("tunrouter_neighbours", {(): 1}),
        ("tunrouter_gossip_tx_messages_total", {(): 10}),
        ("tunrouter_gossip_tx_bytes_total", {(): 2000}),
        ("tunrouter_gossip_rx_messages_total", {(): 11}),
        ("tunrouter_gossip_rx_bytes_total", {(): 2200}),
        ("tunrouter_addresses", {("used",): 4, ("free",): 500, ("resting",): 2}),
        ("tunrouter_blocks", {("own",): 2, ("others",): 3, ("free",): 4091}),
        ("tunrouter_electors", {("reachable",): 1, ("unreachable",): 1}),
        ("tunrouter_fenced_pods", {(): 1}),
        ("tunrouter_attached_pods", {(): 4}),
        ("tunrouter_kubernetes_in_touch", {(): 1}),
        (
            "tunrouter_kubernetes_requests_total",
            {("list", "nodes", "200"): 2, ("watch", "nodes", "unreachable"): 7},
        ),
        ("tunrouter_kubernetes_policy_in_touch", {(): 1}),
        ("tunrouter_build_info", {("0.1.0", "compiled"): 1}),
        ("tunrouter_ready", {(): 1}),
        ("tunrouter_warnings", {(): 1}),
        ("tunrouter_host_repairs_total", {(): 6}),
        ("tunrouter_worker_cpu_seconds_total", {("0",): 1.5, ("1",): 0.0}),
        ("tunrouter_worker_resident_memory_bytes", {("0",): 30_000_000, ("1",): 0}),
        ("process_cpu_seconds_total", {(): 2.5}),
        ("process_resident_memory_bytes", {(): 50_000_000}),
        ("process_virtual_memory_bytes", {(): 500_000_000}),
        ("process_open_fds", {(): 35}),
        ("process_max_fds", {(): 1024}),
        ("process_start_time_seconds", {(): 1_790_000_001.5}),
    ],
)
def test_what_a_metric_says(name: str, series: Series) -> None:
    assert shown(SNAPSHOT)[name] == series


def test_the_lag_is_a_histogram() -> None:
    (found,) = shown(SNAPSHOT)["tunrouter_event_loop_lag_seconds"].values()
    assert isinstance(found, Distribution)
    assert (found.observations, found.total, found.buckets[0], found.buckets[-1]) == (100, 0.5, (0.001, 90), (2.5, 99))


def test_a_network_without_a_password_says_so() -> None:
    plain = changed(encryption=False, connections=(msgspec.structs.replace(NEIGHBOUR, encrypted=False),))
    assert shown(plain)["weave_connections"]["established", "tun", ""] == 1
    assert ("established", "tun", "yes") not in shown(plain)["weave_connections"]


def test_what_is_not_ready_is_0() -> None:
    assert shown(changed(unready="no address is free"))["tunrouter_ready"] == {(): 0}


def test_without_kubernetes_there_is_nothing_of_it() -> None:
    found = shown(changed(kubernetes=None, policy=None))
    assert found["tunrouter_kubernetes_policy_in_touch"] == {}
    assert found["tunrouter_kubernetes_in_touch"] == found["tunrouter_kubernetes_requests_total"] == {}


def test_out_of_touch_is_0() -> None:
    away = Kubernetes(node="host-1", away="watch nodes: not answered")
    assert shown(changed(kubernetes=away))["tunrouter_kubernetes_in_touch"] == {(): 0}


def test_policies_that_nobody_answers_for_are_0_and_those_of_others_are_not_ours() -> None:
    silent = Policy(expected=True, silent=0.5, why="weave-npc does not answer")
    assert shown(changed(policy=silent))["tunrouter_kubernetes_policy_in_touch"] == {(): 0}
    assert shown(changed(policy=Policy(expected=False)))["tunrouter_kubernetes_policy_in_touch"] == {}


def test_an_agent_that_has_just_started_shows_what_there_is() -> None:
    bare = changed(connections=(), counters={}, workers=(), gossip=None, ipam=None, lag=None)
    found = shown(bare)
    assert found["weave_ips"] == found["tunrouter_nodes"] == found["tunrouter_event_loop_lag_seconds"] == {}
    assert set(found["weave_connections"].values()) == {0}


def test_nobody_but_neighbours_with_series_of_their_own_is_named() -> None:
    """What decides who has some, and that they are not too many, is `core/tally.py`."""
    crowd = [msgspec.structs.replace(NEIGHBOUR, peer=f"00:00:00:00:00:{number:02x}", apart=number < 3, rtt=None)
             for number in range(200)]  # fmt: skip
    found = shown(changed(connections=tuple(crowd)))
    assert len(found["tunrouter_peer_tx_bytes_total"]) == 3 + 1
    assert found["tunrouter_peer_rtt_seconds"] == {}
    total = sum(len(series) for series in found.values())
    assert total < 300 + 3 * 7


def test_two_connections_with_one_peer_are_one_series() -> None:
    twice: tuple[Connection, ...] = (NEIGHBOUR, msgspec.structs.replace(NEIGHBOUR, address="192.0.2.9:6783"))
    assert set(shown(changed(connections=twice))["tunrouter_peer_rtt_seconds"]) == {(B, "host-2")}


# --- no counter without a metric -------------------------------------------------------------------------------------
def counters_of_the_code() -> set[str]:
    """Every counter that some code can count under."""
    found = {*COUNTERS, admission.SOURCE_RATE, admission.OVER_BUDGET, admission.ANSWER_SOURCE_RATE}
    found |= {admission.ANSWER_OVER_BUDGET, shares.UNCARRIED, shares.REFUSED, barrier.COUNTER}
    # `gossip.py` counts what is neither new, known nor outdated under its verdict.
    found |= {f"gossip_{verdict.value}" for verdict in (Verdict.FORGED, Verdict.BURIED, Verdict.FULL)}
    for path in (ROOT / "tunrouter").rglob("*.py"):
        if path.relative_to(ROOT / "tunrouter").parts[0] in ("core", "agent", "dataplane"):
            found.update(_counters_in(ast.parse(path.read_text())))
    return found


def _counters_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="count", value=value), args=[name]) if "out" in ast.unparse(value):
                yield from _texts(name)
            case ast.Call(func=ast.Attribute(attr="count", value=ast.Name("self")), args=[name]):
                yield from _texts(name)
            case ast.Subscript(value=value, slice=name) if ast.unparse(value).endswith("counters"):
                yield from _texts(name)
            case ast.Assign(targets=[target], value=value) if ast.unparse(target).endswith("counters"):
                yield from _texts(value)
            case ast.FunctionDef(name="counters"):
                yield from (key for found in ast.walk(node) if isinstance(found, ast.Dict) for key in _keys(found))


def _texts(tree: ast.expr) -> Iterator[str]:
    """But for parts of a text that is put together."""
    if not isinstance(tree, ast.JoinedStr):
        consts = (part.value for part in ast.walk(tree) if isinstance(part, ast.Constant))
        yield from (value for value in consts if isinstance(value, str))


def _keys(tree: ast.Dict) -> Iterator[str]:
    yield from (text for key in tree.keys if key is not None for text in _texts(key))


def test_every_counter_is_shown_and_nothing_is_shown_that_nobody_counts() -> None:
    known = [*(name for names, _ in SETS.values() for name in names), *counted.SINGLE]
    assert len(known) == len(set(known)), "each has one meaning"
    assert set(known) == counters_of_the_code()
    assert {*counted.BOUNDS} <= {*known}


def test_what_the_bounds_file_names_is_a_bound() -> None:
    text = (ROOT / "tunrouter/core/bounds.py").read_text()
    named = set(re.findall(r"\(`([a-z_]+)`", text)) | set(re.findall(r"to workers `([a-z_]+)`", text))
    assert len(named) > 15
    faults = {"drop_malformed", "drop_path_mtu", "drop_unknown_index", "worker_errors"}
    assert named - faults <= {*counted.BOUNDS}, "a limit that is hit is shown as such"


@pytest.mark.parametrize(("metric", "names", "prefix"), [(name, *found) for name, found in SETS.items()])
def test_a_set_has_all_its_values_from_the_start(metric: str, names: dict[str, str], prefix: str) -> None:
    assert set(shown(changed(counters={}))[metric]) == {(name.removeprefix(prefix),) for name in names}
    everything = {name: number for number, name in enumerate(names)}
    found = shown(changed(counters=everything))[metric]
    assert found == {(name.removeprefix(prefix),): number for name, number in everything.items()}


def test_a_bound_that_was_hit_is_shown_as_such_too() -> None:
    found = shown(SNAPSHOT)
    assert found["tunrouter_bounds_hit_total"]["drop_queue_full",] == 2
    assert found["tunrouter_dropped_packets_total"]["queue_full",] == 2
    assert found["tunrouter_dropped_packets_total"]["tag",] == 5
    assert set(found["tunrouter_bounds_hit_total"]) == {(name,) for name in counted.BOUNDS}


# --- names and documentation -----------------------------------------------------------------------------------------
def test_names_follow_the_rules_of_prometheus() -> None:
    assert len({metric.name for metric in TABLE}) == len(TABLE)
    for metric in TABLE:
        assert re.fullmatch(r"(weave|weavenpc|tunrouter|process)_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)
        assert metric.meaning[0].isupper() or metric.meaning[0].isdigit(), "one line, without a full stop"
        assert not metric.meaning.endswith(".")


@pytest.mark.parametrize(("document", "table"), [(AGENT, TABLE), (NPC, npc.TABLE)], ids=["agent", "npc"])
def test_the_document_has_every_metric_in_the_same_words(document: str, table: Sequence[Any]) -> None:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.meaning} |"
        for metric in table
    ]
    written = [line for line in document.splitlines() if re.match(r"\| `(weave|weavenpc|tunrouter|process)_", line)]
    assert written == rows


@pytest.mark.parametrize(("metric", "names", "prefix"), [(name, *found) for name, found in SETS.items()])
def test_the_document_has_every_value_in_the_same_words(metric: str, names: dict[str, str], prefix: str) -> None:
    _, _, section = AGENT.partition(f" of `{metric}`\n")
    rows = [line for line in section.partition("\n### ")[0].splitlines() if line.startswith("| `")]
    assert rows == [f"| `{name.removeprefix(prefix)}` | {meaning} |" for name, meaning in names.items()]


def test_the_document_has_every_bound() -> None:
    _, _, section = AGENT.partition("### Bounds of ")
    assert re.findall(r"`([a-z_]+)`[,.]", section) == list(counted.BOUNDS)
    assert f"at most {bounds.MAX_PEER_SERIES} of them" in AGENT
