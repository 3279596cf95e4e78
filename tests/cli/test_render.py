"""The text of `status` against what Weave's users know, character by character."""

from __future__ import annotations

import msgspec
import pytest

from tunrouter.cli.render import Style, report, why_no_pod
from tunrouter.cli.text import duration, printable, size
from tunrouter.core.status import (
    READY,
    UNREACHABLE,
    WAITING,
    Connection,
    Elector,
    Host,
    Ipam,
    Owner,
    Peer,
    Pending,
    Policy,
    Snapshot,
    Worker,
    awaiting_consensus,
    no_quorum,
)

A, B, C = "7a:16:dd:5b:83:de", "42:8e:e8:c4:52:1b", "00:11:22:33:44:55"
ESTABLISHED = Connection(
    outbound=True,
    address="192.0.2.2:6783",
    state="established",
    peer=B,
    nickname="host-2",
    encrypted=True,
    mtu=1439,
    rtt=0.00042,
    loss=0.0123,
    last_handshake=61.0,
    last_received=0.25,
    sent_packets=12,
    sent_bytes=1_500_000,
    received_packets=7,
    received_bytes=900,
)
INBOUND = msgspec.structs.replace(ESTABLISHED, outbound=False, address="192.0.2.3:6783", peer=C, nickname="host-3")
PENDING = Connection(outbound=True, address="192.0.2.4:6783", state="pending")
RETRYING = Connection(
    outbound=True, address="host-5:6783", state="retrying", reason="name does not resolve", retry_in=1.5
)
FAILED = Connection(outbound=False, address="192.0.2.6:6783", state="failed", reason="peer requires a password")
CONNECTING = Connection(outbound=True, address="[2001:db8::1234:5678]:6783", state="connecting")
SNAPSHOT = Snapshot(
    version="0.1.0",
    name=A,
    nickname="host-1",
    id="7a16dd5b83de0102",
    incarnation=1_790_000_000,
    network="weave",
    port=6783,
    encryption=True,
    secrets=1,
    kernel="reference",
    range="10.32.0.0/12",
    block="10.32.1.0/24",
    mtu=1376,
    uptime=3725.0,
    targets=("192.0.2.2", "host-5"),
    connections=(ESTABLISHED, INBOUND, PENDING, RETRYING, FAILED, CONNECTING),
    peers=(
        Peer(name=A, nickname="host-1", id="7a16dd5b83de0102", blocks=("10.32.1.0/24",), connections=(ESTABLISHED,)),
        Peer(name=B, nickname="host-2", id="428ee8c4521b0102", blocks=("10.32.2.0/24",), connections=(PENDING,)),
    ),
    host=Host(
        bridge="weave",
        bridge_address="10.32.1.1/24",
        bridge_mode="isolated",
        tun="tunrouter0",
        tun_offloads=("csum", "tso4"),
        underlay_mtu=1500,
        attachments=2,
        firewall=("iptables FORWARD would drop: accepts added",),
    ),
    counters={"replayed": 3, "zero": 0},
)

IPAM = Ipam(
    mode="registers",
    status="ready",
    cluster="5f1c22d09a7be340",
    epoch=3,
    electors=(
        Elector(peer=A, nickname="host-1", reachable=True, this=True),
        Elector(peer=B, nickname="host-2", reachable=True),
        Elector(peer=C, nickname="host-3", reachable=False),
    ),
    range="10.32.0.0/12",
    block_size=24,
    blocks_total=4096,
    blocks_owned=1539,
    blocks_free=2557,
    blocks_own=2,
    used=2,
    free=505,
    resting=1,
    owners=(
        Owner(peer=A, nickname="host-1", blocks=2, addresses=512, share=2 / 4096, reachable=True, active=2),
        Owner(peer=C, nickname="host-3", blocks=1, addresses=256, share=1 / 4096, reachable=False),
        Owner(peer=B, nickname="host-2", blocks=1536, addresses=393_216, share=0.375, reachable=True),
    ),
)
STUCK = msgspec.structs.replace(
    IPAM,
    status="no quorum: 1 of 3 electors reachable",
    pending=(Pending(what="a block", why="no quorum: 1 of 3 electors reachable"),),
    fenced=tuple(f"10.32.9.{number}" for number in range(2, 20)),
)
STATIC = msgspec.structs.replace(IPAM, mode="static", cluster="", epoch=0, electors=(), blocks_free=0)

WORKERS = (
    Worker(number=0, pid=4711, uptime=60.0, restarts=0),
    Worker(number=1, pid=0, uptime=0.0, restarts=2),
)

SUMMARY = """
        Version: 0.1.0

        Service: router
       Protocol: tunrouter 1
           Name: 7a:16:dd:5b:83:de(host-1)
     Encryption: enabled
  PeerDiscovery: enabled
        Targets: 2
    Connections: 6 (2 established, 1 pending, 1 retrying, 1 failed, 1 connecting)
          Peers: 2 (with 1 established, 1 pending connections)
 TrustedSubnets: none

        Service: ipam
         Status: ready
          Range: 10.32.0.0/12
  DefaultSubnet: 10.32.0.0/12
          Block: 10.32.1.0/24
"""

CONNECTIONS = """\
-> 192.0.2.2:6783             established encrypted   tun    42:8e:e8:c4:52:1b(host-2) mtu=1439 rtt=0.4ms loss=1.2%
<- 192.0.2.3:6783             established encrypted   tun    00:11:22:33:44:55(host-3) mtu=1439 rtt=0.4ms loss=1.2%
-> 192.0.2.4:6783             pending     unencrypted tun
-> host-5:6783                retrying    name does not resolve, retry: in 1.5s
<- 192.0.2.6:6783             failed      peer requires a password, retry: never
-> [2001:db8::1234:5678]:6783 connecting"""

PEERS = """\
7a:16:dd:5b:83:de(host-1)
   -> 192.0.2.2:6783        42:8e:e8:c4:52:1b(host-2)             established
42:8e:e8:c4:52:1b(host-2)
   -> 192.0.2.4:6783                                              pending"""

OWNERS = """\
7a:16:dd:5b:83:de(host-1)                  512 IPs (00.0% of total) (2 active)
00:11:22:33:44:55(host-3)                  256 IPs (00.0% of total) - unreachable!
42:8e:e8:c4:52:1b(host-2)               393216 IPs (37.5% of total)
"""

ADDRESSES = (
    OWNERS
    + """
         Status: ready
        Cluster: 5f1c22d09a7be340, epoch 3
        Elector: 7a:16:dd:5b:83:de(host-1) (this node)
        Elector: 42:8e:e8:c4:52:1b(host-2)
        Elector: 00:11:22:33:44:55(host-3) (no answer)
         Blocks: 4096 of /24: 1539 owned (2 here), 2557 free
      Addresses: 2 used, 505 free, 1 resting"""
)


def of(ipam: Ipam | None) -> Snapshot:
    return msgspec.structs.replace(SNAPSHOT, ipam=ipam)


def test_addresses() -> None:
    assert report(of(IPAM), "ipam", Style()) == ADDRESSES


def test_owners_in_weaves_format() -> None:
    """As weaver printed them: %-37v %8d IPs (%04.1f%% of total) %s."""
    expected = f"{f'{A}(host-1)':<37} {512:8d} IPs ({2 / 4096 * 100:04.1f}% of total) (2 active)"
    assert report(of(IPAM), "ipam", Style()).splitlines()[0] == expected


def test_a_node_without_addresses_is_listed() -> None:
    newcomer = Owner(peer=A, nickname="host-1", blocks=0, addresses=0, share=0.0, reachable=True, active=0)
    text = report(of(msgspec.structs.replace(IPAM, owners=(newcomer,))), "ipam", Style())
    assert text.splitlines()[0] == "7a:16:dd:5b:83:de(host-1)                    0 IPs (00.0% of total) (0 active)"


def test_what_waits_and_why_is_said() -> None:
    text = report(of(STUCK), "ipam", Style())
    assert text.startswith(OWNERS)
    assert "         Status: no quorum: 1 of 3 electors reachable\n" in text
    assert "        Waiting: a block: no quorum: 1 of 3 electors reachable\n" in text
    fenced = text.splitlines()[-1]
    assert fenced.startswith("         Fenced: 10.32.9.2, 10.32.9.3, ")
    assert fenced.endswith("10.32.9.17 and 2 more")


def test_scripts_that_remove_what_is_unreachable_find_peers_alone() -> None:
    """As Weave's users do: awk '/unreachable!$/ {print $1}'."""
    lines = report(of(STUCK), "ipam", Style()).splitlines()
    assert [line.split()[0] for line in lines if line.endswith("unreachable!")] == [f"{C}(host-3)"]


def test_blocks_by_hand_have_no_electors() -> None:
    lines = report(of(STATIC), "ipam", Style()).splitlines()
    assert "         Blocks: 4096 of /24: 1539 owned (2 here), given by hand" in lines
    assert not any("Cluster" in line or "Elector" in line for line in lines)


def test_wide_addresses_add_blocks() -> None:
    wide = report(of(IPAM), "ipam", Style(wide=True)).splitlines()
    assert wide[1] == ADDRESSES.splitlines()[1] + " blocks=1"


def test_an_agent_that_tells_nothing_of_addresses() -> None:
    assert report(of(None), "ipam", Style()) == ""


def test_the_summary_has_the_status_of_addresses() -> None:
    joining = msgspec.structs.replace(of(STUCK), block="", peers=())
    lines = report(joining, None, Style(wide=True)).splitlines()
    for line in (
        "         Status: no quorum: 1 of 3 electors reachable",
        "          Block: none yet",
        "        Cluster: 5f1c22d09a7be340, epoch 3",
        "        Elector: 00:11:22:33:44:55(host-3) (no answer)",
    ):
        assert line in lines
    assert report(of(IPAM), None, Style()) == SUMMARY
    several = msgspec.structs.replace(SNAPSHOT.peers[0], blocks=("10.32.1.0/24", "10.32.7.0/24"))
    text = report(msgspec.structs.replace(of(IPAM), peers=(several,)), None, Style())
    assert "          Block: 10.32.1.0/24, 10.32.7.0/24" in text.splitlines()


def test_weaves_words_for_the_state_of_addresses() -> None:
    assert awaiting_consensus(2, 1) == "awaiting consensus (quorum: 2, known: 1)"
    assert no_quorum(1, 3) == "no quorum: 1 of 3 electors reachable"
    assert (READY, WAITING) == ("ready", "waiting for IP(s) to become available")
    assert UNREACHABLE == "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"


def test_the_summary() -> None:
    assert report(SNAPSHOT, None, Style()) == SUMMARY


def test_the_summary_of_a_lonely_node_without_a_password() -> None:
    alone = msgspec.structs.replace(SNAPSHOT, encryption=False, targets=(), connections=(), peers=SNAPSHOT.peers[:1])
    alone = msgspec.structs.replace(alone, peers=(msgspec.structs.replace(alone.peers[0], connections=()),))
    lines = report(alone, None, Style()).splitlines()
    assert "     Encryption: disabled" in lines
    assert "    Connections: 0" in lines
    assert "          Peers: 1" in lines


def test_warnings_stay() -> None:
    warned = msgspec.structs.replace(SNAPSHOT, warnings=("the password has about 40 bits", "no \x1b[2J compiler"))
    ending = "\n        Warning: the password has about 40 bits\n        Warning: no \\x1b[2J compiler\n"
    assert report(warned, None, Style()) == SUMMARY + ending


def test_the_summary_says_why_no_pod_can_be_added() -> None:
    """Before all else, for it is what `status` exits with 1 for."""
    full = msgspec.structs.replace(SNAPSHOT, unready="no address is free: all are held", warnings=("slow",))
    ending = "\n        Warning: no pod can be added: no address is free: all are held\n        Warning: slow\n"
    assert report(full, None, Style()) == SUMMARY + ending


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        (Policy(expected=True), "in force by weave-npc"),
        (Policy(expected=True, amiss="pods are not known"),
         "not in force by weave-npc, the rules of before hold: pods are not known"),
        (Policy(expected=False), "not by tunrouter: no weave-npc is expected on this node"),
        (Policy(expected=True, silent=12.3, why="nobody listens"),
         "weave-npc does not answer since 12s, so no pod can be added: nobody listens"),
    ],
)  # fmt: skip
def test_the_summary_says_who_sees_to_policies(policy: Policy, line: str) -> None:
    text = report(msgspec.structs.replace(SNAPSHOT, policy=policy), None, Style())
    assert f"         Policy: {line}" in text.splitlines()
    assert "Warning" not in text


def test_what_keeps_pods_away_for_long_is_a_warning_even_of_an_agent_that_is_ready() -> None:
    lasting = Policy(expected=True, silent=99.0, why="nobody listens", hindrance="nobody listens")
    there = msgspec.structs.replace(SNAPSHOT, policy=lasting)
    assert "        Warning: no pod can be added: nobody listens" in report(there, None, Style()).splitlines()
    assert why_no_pod(there) == "nobody listens"
    assert why_no_pod(SNAPSHOT) == ""


def test_the_wide_summary_adds_and_changes_nothing() -> None:
    wide = report(SNAPSHOT, None, Style(wide=True))
    assert [line for line in SUMMARY.splitlines() if line not in wide.splitlines()] == []
    for line in (
        "         Uptime: 1h2m",
        "           Port: 6783",
        "            MTU: 1376",
        "         Bridge: weave 10.32.1.1/24 (isolated)",
        "            Tun: tunrouter0 (csum, tso4)",
        "       Firewall: iptables FORWARD would drop: accepts added",
        f"{'replayed':>32}: 3",
    ):
        assert line in wide.splitlines()
    assert "zero" not in wide


def test_connections() -> None:
    assert report(SNAPSHOT, "connections", Style()) == CONNECTIONS


def test_weaves_column_widths_hold_for_ipv4() -> None:
    one = msgspec.structs.replace(SNAPSHOT, connections=(ESTABLISHED,))
    expected = f"{'->':<2} {'192.0.2.2:6783':<21} {'established':<11} {'encrypted':<11} {'tun':<6} {B}(host-2) mtu=1439"
    assert report(one, "connections", Style()).startswith(expected)


def test_without_a_password_there_is_no_encryption_column() -> None:
    plain = msgspec.structs.replace(SNAPSHOT, encryption=False, connections=(ESTABLISHED,))
    assert report(plain, "connections", Style()).split()[2:5] == ["established", "tun", f"{B}(host-2)"]


def test_wide_connections_add_bytes_ages_and_path() -> None:
    one = msgspec.structs.replace(SNAPSHOT, connections=(ESTABLISHED,))
    added = " path=direct sent=1.4MiB/12 received=900B/7 handshake=1m1s heard=250.0ms"
    assert report(one, "connections", Style(wide=True)) == report(one, "connections", Style()) + added


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, " loss=0.0%"), (0.19, " loss=19.0%"), (1.0, " loss=100.0%"), (None, "")]
)
def test_loss_is_shown_once_it_is_known(share: float | None, shown: str) -> None:
    one = msgspec.structs.replace(ESTABLISHED, loss=share)
    text = report(msgspec.structs.replace(SNAPSHOT, connections=(one,)), "connections", Style())
    assert text.endswith(f"(host-2) mtu=1439 rtt=0.4ms{shown}")


def test_a_relayed_path_is_always_shown() -> None:
    relayed = msgspec.structs.replace(ESTABLISHED, path="via host-3")
    text = report(msgspec.structs.replace(SNAPSHOT, connections=(relayed,)), "connections", Style())
    assert text.endswith("mtu=1439 rtt=0.4ms loss=1.2% path=via host-3")


def test_peers() -> None:
    assert report(SNAPSHOT, "peers", Style()) == PEERS
    assert "id=7a16dd5b83de0102 blocks=10.32.1.0/24" in report(SNAPSHOT, "peers", Style(wide=True))


def test_targets() -> None:
    assert report(SNAPSHOT, "targets", Style()) == "192.0.2.2\nhost-5"


def test_only_colour_differs_in_colour() -> None:
    for name in (None, "connections", "peers"):
        coloured = report(SNAPSHOT, name, Style(colour=True))
        for code in ("32", "33", "31", "0"):
            coloured = coloured.replace(f"\x1b[{code}m", "")
        assert coloured == report(SNAPSHOT, name, Style())
    assert "\x1b[32mestablished\x1b[0m" in report(SNAPSHOT, "connections", Style(colour=True))


HOSTILE = "\x1b]0;owned\x07\n-> 192.0.2.9\u202e\udc80"


@pytest.mark.parametrize("name", [None, "connections", "ipam", "peers", "targets"])
@pytest.mark.parametrize("wide", [False, True])
def test_no_text_of_a_peer_reaches_the_terminal_raw(name: str | None, wide: bool) -> None:
    hostile = Connection(
        outbound=True,
        address=HOSTILE,
        state="established",
        peer=HOSTILE,
        nickname=HOSTILE,
        path=HOSTILE,
        reason=HOSTILE,
    )
    snapshot = msgspec.structs.replace(
        SNAPSHOT,
        nickname=HOSTILE,
        network=HOSTILE,
        targets=(HOSTILE,),
        warnings=(HOSTILE,),
        connections=(hostile, msgspec.structs.replace(hostile, state=HOSTILE)),
        peers=(Peer(name=HOSTILE, nickname=HOSTILE, id=HOSTILE, blocks=(HOSTILE,), connections=(hostile,)),),
        counters={HOSTILE: 1},
        ipam=msgspec.structs.replace(
            STUCK,
            status=HOSTILE,
            cluster=HOSTILE,
            electors=(Elector(peer=HOSTILE, nickname=HOSTILE, reachable=False),),
            owners=(Owner(peer=HOSTILE, nickname=HOSTILE, blocks=1, addresses=1, share=1.0, reachable=False),),
            pending=(Pending(what=HOSTILE, why=HOSTILE),),
            fenced=(HOSTILE,),
        ),
    )
    text = report(snapshot, name, Style(wide=wide))
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("-> 192.0.2.9") for line in text.splitlines())


def test_printable() -> None:
    assert printable("Grüße, 世界") == "Grüße, 世界"
    assert printable("a\tb\x00") == r"a\tb\x00"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0ms"), (0.00042, "0.4ms"), (1.5, "1.5s"), (59.9, "59s"), (61, "1m1s"), (3725, "1h2m"), (90061, "1d1h")],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0B"), (999, "999B"), (1000, "1.0KiB"), (1 << 20, "1.0MiB"), (1 << 60, "1024.0PiB")]
)
def test_size(count: int, shown: str) -> None:
    assert size(count) == shown


def test_workers_are_listed_with_what_became_of_them() -> None:
    text = report(msgspec.structs.replace(SNAPSHOT, workers=WORKERS), None, Style(wide=True))
    lines = [line.strip() for line in text.splitlines()]
    assert f"Worker: 0 (pid 4711, up {duration(60.0)})" in lines
    assert "Worker: 1 (being replaced, replaced 2 times)" in lines


def test_the_chosen_underlay_is_shown_with_whose_choice_it_is() -> None:
    chosen = Host(underlay="192.0.2.7", underlay_device="eth1", underlay_wish="--iface eth1")
    text = report(msgspec.structs.replace(SNAPSHOT, host=chosen), None, Style())
    assert " TrustedSubnets: none\n       Underlay: 192.0.2.7 (eth1), by --iface eth1\n" in text
    assert "Underlay:" not in report(SNAPSHOT, None, Style())
    assert "       Underlay: all addresses\n" in report(SNAPSHOT, None, Style(wide=True))
