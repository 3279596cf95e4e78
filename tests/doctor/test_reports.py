"""What the doctor makes of a snapshot: each fault is said by its own check, with what mends it, and nothing else is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.agent.snapshots import IPAM, NEIGHBOUR, OTHER, A, B
from tests.agent.snapshots import SNAPSHOT as BUSY
from tests.cli.test_render import STUCK
from tunrouter.agent import counted
from tunrouter.core import status
from tunrouter.core.status import UNREACHABLE, Clock, Connection, Host, Ipam, Peer, Route, Snapshot, Worker
from tunrouter.doctor import Finding, told
from tunrouter.doctor.peers import SHOWN
from tunrouter.doctor.reports import DROP_FIXES, JUMP_SECONDS, MANY_DROPS, MANY_REPAIRS, addresses

THIS = Peer(name=A, nickname="host-1", id="1", blocks=("10.32.1.0/24",), mtu=1376)
THAT = Peer(name=B, nickname="host-2", id="2", blocks=("10.32.2.0/24",), mtu=1376)
HEALTHY = msgspec.structs.replace(
    BUSY,
    connections=(NEIGHBOUR,),
    peers=(THIS, THAT),
    host=Host(tun="tunrouter0", underlay_mtu=1500),
    workers=(Worker(number=0, pid=4711, uptime=60.0, restarts=2),),
    endpoints=("192.0.2.1:6783", "[2001:db8::1]:6783"),
)
SENT = Connection(outbound=True, address="192.0.2.9:6783", state="retrying")
CALLS = Connection(outbound=False, address="192.0.2.7:41000", state="failed")


def of(snapshot: Snapshot = HEALTHY, **changes: Any) -> Snapshot:
    return msgspec.structs.replace(snapshot, **changes)


def row(base: Connection = NEIGHBOUR, **changes: Any) -> Connection:
    return msgspec.structs.replace(base, **changes)


def complaints(snapshot: Snapshot) -> list[Finding]:
    return [finding for finding in told(snapshot) if finding.level != "ok"]


def the_complaint(snapshot: Snapshot) -> Finding:
    (found,) = complaints(snapshot)
    assert found.fix, "who is not well is told what helps"
    return found


def test_of_a_healthy_node_every_check_says_that_it_is() -> None:
    assert complaints(HEALTHY) == []
    checks = [finding.check for finding in told(HEALTHY)]
    assert checks == ["peers", "password", "path-mtu", "blocks", "addresses", "cluster", "agent", "drops"]
    assert complaints(of(counters=dict.fromkeys(counted.DROPPED, 1000))) == [], "what once was is no fault of now"


# --- peers -----------------------------------------------------------------------------------------------------------
RELAYED = row(OTHER, path="relay through host-2", mtu=1376)
WAYS = [
    (
        row(RELAYED, fault=status.ONE_WAY_OUT),
        "warn",
        (
            "UDP from here to host-3 at 192.0.2.3:6783 is lost, while what it sends arrives here; "
            "its traffic goes by relay through host-2"
        ),
        "let UDP from 192.0.2.1:6783 to 192.0.2.3:6783 out of this host, through what lies between, and in there",
    ),
    (
        row(RELAYED, fault=status.ONE_WAY_IN, address="[2001:db8::3]:6783"),
        "warn",
        (
            "UDP from host-3 at [2001:db8::3]:6783 to here is lost, while what we send arrives there; "
            "its traffic goes by relay through host-2"
        ),
        "let UDP from [2001:db8::3]:6783 to [2001:db8::1]:6783 out of that host, through what lies between",
    ),
    (
        row(RELAYED, fault=status.RELAYED),
        "warn",
        "no direct way to host-3 at 192.0.2.3:6783: its traffic goes by relay through host-2",
        "let UDP between 192.0.2.1:6783 and 192.0.2.3:6783 pass both ways",
    ),
    (
        row(CALLS, fault=status.ONE_WAY_OUT, refused=2),
        "fail",
        "UDP from here to 192.0.2.7:41000 is lost, while what it sends arrives here",
        "let UDP from 192.0.2.1:6783 to 192.0.2.7:41000 out of this host, through what lies between, and in there",
    ),
    (row(SENT, fault=status.SILENT), "warn", "192.0.2.9:6783 does not answer", "start its agent, or let UDP 6783 pass"),
    (
        row(CALLS, fault=status.VERSION, reason="peer speaks protocol version 3, this node 1", refused=1),
        "fail",
        "192.0.2.7:41000: peer speaks protocol version 3, this node 1",
        "install the same release",
    ),
    (
        row(CALLS, fault=status.CLONE, refused=1),
        "fail",
        "192.0.2.7:41000 has this node's identity",
        "on one of the two",
    ),
    (
        row(SENT, fault=status.CLUSTER, reason="belongs to cluster 1, ours is 2"),
        "fail",
        "192.0.2.9:6783 belongs to cluster 1, ours is 2",
        "on the one that is to join: tunrouter leave --force",
    ),
    (
        row(fault=status.HOLE, reason="not even datagrams of 1200 bytes arrive", mtu=1139),
        "fail",
        "host-2 at 192.0.2.2:6783: not even datagrams of 1200 bytes arrive, so only small packets pass",
        "mend the MTU",
    ),
]


@pytest.mark.parametrize(("connection", "level", "text", "fix"), WAYS)
def test_what_is_wrong_between_us_and_a_peer(connection: Connection, level: str, text: str, fix: str) -> None:
    found = the_complaint(of(connections=(NEIGHBOUR, connection)))
    assert (found.check, found.level) == ("peers", level)
    assert found.text.startswith(text)
    assert found.fix.startswith(fix)


def test_where_it_is_not_known_how_others_see_us_the_fix_says_so() -> None:
    found = the_complaint(of(connections=(row(RELAYED, fault=status.RELAYED),), endpoints=()))
    assert found.fix == "let UDP between this host's port 6783 and 192.0.2.3:6783 pass both ways"


def test_of_an_address_that_is_dialled_and_calls_one_is_said() -> None:
    calls = row(CALLS, address=SENT.address, fault=status.CLUSTER, reason="belongs to cluster 1", refused=3)
    assert len(complaints(of(connections=(row(SENT, fault=status.CLUSTER, reason="belongs to cluster 1"), calls)))) == 1


def test_a_handshake_that_came_to_nothing_once_accuses_nobody() -> None:
    assert complaints(of(connections=(row(CALLS, fault=status.ONE_WAY_OUT, refused=1),))) == []


def test_of_many_the_worst_are_said_and_the_others_counted() -> None:
    away = [row(SENT, address=f"192.0.2.{number}:6783", fault=status.SILENT) for number in range(10, 30)]
    found = complaints(of(connections=(*away, row(CALLS, fault=status.VERSION, refused=1))))
    assert found[0].level == "fail"
    assert len(found) == SHOWN + 1
    assert found[-1].text == f"and {21 - SHOWN} more like these"


# --- passwords -------------------------------------------------------------------------------------------------------
def test_another_password_is_said_once_a_host_and_how_often() -> None:
    wrong = row(SENT, state="failed", fault=status.MISMATCH, reason="wrong password")
    ports = [row(CALLS, address=f"192.0.2.9:{port}", fault=status.MISMATCH, reason="wrong password", refused=port)
             for port in (1, 2, 3)]  # fmt: skip
    found = the_complaint(of(connections=(wrong, *ports)))
    assert (found.check, found.level) == ("password", "fail")
    assert found.text == "192.0.2.9: wrong password (6 handshakes refused of late)"
    assert found.fix.startswith("give both the same --password-file and --network")


def test_whom_nobody_named_is_not_called_a_failure() -> None:
    found = the_complaint(of(connections=(row(CALLS, fault=status.MISMATCH, reason="wrong password", refused=9),)))
    assert (found.check, found.level) == ("password", "warn")


# --- sizes and blocks ------------------------------------------------------------------------------------------------
def test_a_path_that_carries_less_than_the_card_promises() -> None:
    found = the_complaint(of(connections=(row(mtu=1219, path_mtu=1280, path_mtu_wanted=1437),)))
    assert (found.check, found.level) == ("path-mtu", "warn")
    assert found.text == (
        "datagrams of 1437 bytes vanish on the way to host-2 at 192.0.2.2:6783 (this host's card takes 1500); "
        "1280 arrive, so pods' packets have 1219 bytes there instead of 1376"
    )
    assert "--mtu 1219" in found.fix


def test_pods_of_another_size() -> None:
    found = the_complaint(of(peers=(THIS, msgspec.structs.replace(THAT, mtu=1200))))
    assert (found.check, found.text) == ("path-mtu", "pods of host-2 have MTU 1200, those here 1376")


def test_blocks_that_cannot_be_routed() -> None:
    refused = msgspec.structs.replace(THAT, refused="announces a block that is no /24")
    found = the_complaint(of(peers=(THIS, refused)))
    assert (found.check, found.level) == ("blocks", "fail")
    assert found.text == "traffic to host-2 is dropped: it announces a block that is no /24"
    assert "--range 10.32.0.0/12 and --block-size 24" in found.fix
    foreign = msgspec.structs.replace(THAT, refused="belongs to cluster 1, ours is 2")
    assert the_complaint(of(peers=(THIS, foreign))).fix.startswith("on the one that is to join: tunrouter leave")


@pytest.mark.parametrize(("version", "fix"), [(0, "give one of the two another --block"), (7, "wait: its register")])
def test_a_block_of_two(version: int, fix: str) -> None:
    route = Route(block="10.32.2.0/24", version=version, peer=B, nickname="host-2", path="", conflict="host-3 has it")
    found = the_complaint(of(routes=(route,)))
    assert (found.check, found.text) == ("blocks", "10.32.2.0/24 of host-2 is not used: host-3 has it")
    assert found.fix.startswith(fix)


# --- addresses -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ipam", "level", "words"),
    [
        (IPAM, "ok", "4 used, 500 free in 2 blocks here"),
        (STUCK, "fail", "10.32.9.2, 10.32.9.3"),
        (STUCK, "fail", "10.32.9.17 and 2 more: the block is another node's now"),
        (msgspec.structs.replace(STUCK, fenced=()), "warn", "no quorum: 1 of 3 electors reachable; until then no new"),
        (msgspec.structs.replace(IPAM, status=UNREACHABLE), "fail", "use 'rmpeer' if they are dead"),
        (msgspec.structs.replace(IPAM, free=0), "fail", "no address is free: all are held"),
    ],
)
def test_what_ails_addresses(ipam: Ipam, level: str, words: str) -> None:
    unready = "" if ipam.free else "no address is free: all are held"
    (found,) = addresses(of(ipam=ipam, unready=unready))
    assert (found.check, found.level) == ("addresses", level)
    assert words in found.text
    assert bool(found.fix) == (level != "ok")


def test_electors_that_are_away_are_named() -> None:
    found = the_complaint(of(ipam=msgspec.structs.replace(STUCK, fenced=())))
    assert found.fix == "start the electors that do not answer: host-3; see: tunrouter status ipam"


def test_of_addresses_that_it_is_not_told_of_it_is_silent() -> None:
    assert list(addresses(of(ipam=None))) == []


# --- Kubernetes ------------------------------------------------------------------------------------------------------
LEFT_OUT = "portmap is left out of the chain of CNI plugins: /opt/cni/bin/portmap does not speak; take it away"


@pytest.mark.parametrize(
    ("changes", "level", "text", "fix"),
    [
        ({"away": "watch nodes: lost"}, "warn", "out of touch with the Kubernetes API: watch nodes: lost", "see from"),
        ({"registered": False}, "fail", "there is no Node object 'host-1' in the cluster", "kubectl get node host-1"),
        ({"lacks": (LEFT_OUT,)}, "fail", "portmap is left out", "take it away"),
        ({"lacks": ("a disk is full",)}, "fail", "a disk is full", "see the agent's log"),
        ({"conflicts": (status.Conflict(text="ranges overlap", fix="another"),)}, "warn", "ranges overlap", "another"),
    ],
)
def test_what_ails_the_cluster(changes: dict[str, Any], level: str, text: str, fix: str) -> None:
    assert HEALTHY.kubernetes is not None
    found = the_complaint(of(kubernetes=msgspec.structs.replace(HEALTHY.kubernetes, **changes)))
    assert (found.check, found.level) == ("cluster", level)
    assert found.text.startswith(text)
    assert found.fix.startswith(fix)


def test_a_policy_process_that_does_not_answer_for_long_is_a_fault() -> None:
    away = status.Policy(expected=True, silent=11.0, why="weave-npc does not answer on /run/tunrouter/npc.sock")
    found = the_complaint(of(policy=away))
    assert (found.check, found.level) == ("cluster", "fail")
    assert found.text.startswith("weave-npc does not answer on /run/tunrouter/npc.sock: no pod can be added")
    assert "weave-net's on host-1" in found.fix
    assert complaints(of(policy=msgspec.structs.replace(away, silent=3.0))) == []
    assert complaints(of(policy=status.Policy(expected=False))) == []


def test_what_is_not_known_of_the_cluster_yet_is_no_fault() -> None:
    assert complaints(of(kubernetes=status.Kubernetes(node="host-1"))) == []
    assert [finding for finding in told(of(kubernetes=None)) if finding.check == "cluster"] == []


# --- the agent -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({"unready": "this host is not set up yet"}, "fail", "no pod can be attached: this host is not set up yet"),
        ({"kernel": "reference"}, "warn", "packets are moved by the slow reference in Python"),
        ({"workers": (Worker(number=1, pid=0, uptime=0.0, restarts=1),)}, "fail", "worker 1 is gone"),
        ({"lately": {"worker_restarts": 1}}, "warn", "a worker was replaced once in the last minutes"),
        ({"lately": {"identity_cloned": 1}}, "fail", "another machine has this node's identity"),
        ({"lately": {"starved": 3}}, "warn", "the agent was held up for more than half a second 3 times"),
        ({"clock": Clock(jumps=1, last=-60.0, ago=300.0)}, "warn", "somebody set the clock back by 60 s, 5 min ago"),
    ],
)
def test_what_ails_the_agent(changes: dict[str, Any], level: str, text: str) -> None:
    found = the_complaint(of(**changes))
    assert (found.check, found.level) == ("agent", level)
    assert found.text.startswith(text)


def test_somebody_who_repairs_against_us_is_told_from_an_operator() -> None:
    host = msgspec.structs.replace(HEALTHY.host, repaired=("table inet tunrouter", "table inet tunrouter"))
    few, many = ({status.REPAIRS: count} for count in (MANY_REPAIRS - 1, MANY_REPAIRS))
    assert complaints(of(host=host, lately=few)) == []
    found = the_complaint(of(host=host, lately=many))
    assert (found.check, found.level) == ("agent", "fail")
    assert found.text.endswith("5 repairs in the last minutes, the last of table inet tunrouter")


def test_an_old_jump_of_the_clock_is_history() -> None:
    assert complaints(of(clock=Clock(jumps=1, last=60.0, ago=JUMP_SECONDS))) == []


# --- drops -----------------------------------------------------------------------------------------------------------
def test_drops_that_grow_are_said_with_their_meaning() -> None:
    found = the_complaint(of(lately={"drop_no_route": MANY_DROPS, "drop_tag": MANY_DROPS - 1}))
    assert (found.check, found.level) == ("drops", "warn")
    assert found.text == "drop_no_route grew by 10 in the last minutes: nobody has that address, or this node itself"
    assert found.fix == "see which address it is: tcpdump -ni tunrouter0, then tunrouter whois ADDRESS"


def test_limits_that_are_hit_are_said_at_once() -> None:
    found = the_complaint(of(lately={"peers_full": 1}))
    assert found.text == "a limit was hit once in the last minutes (peers_full): no room for a peer"


def test_each_counter_is_judged_once_and_each_fix_has_its_counter() -> None:
    grown = dict.fromkeys((*counted.DROPPED, *counted.BOUNDS), 1000)
    names = [finding.text.partition(" ")[0] for finding in complaints(of(lately=grown)) if "grew" in finding.text]
    assert set(names) == {*counted.DROPPED} - {*counted.BOUNDS}
    assert {*DROP_FIXES} <= {*names}
