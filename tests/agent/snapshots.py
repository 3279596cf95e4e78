"""A snapshot in which every metric has a value, for tests of what is made of it."""

from __future__ import annotations

from tunrouter.core.status import (
    LAG_SECONDS,
    Connection,
    Elector,
    Gossip,
    Host,
    Ipam,
    Kubernetes,
    Lag,
    Neighbour,
    Owner,
    Policy,
    Process,
    Requests,
    Snapshot,
    Traffic,
    Worker,
)

A, B, C = "7a:16:dd:5b:83:de", "42:8e:e8:c4:52:1b", "00:11:22:33:44:55"
NEIGHBOUR = Connection(
    outbound=True,
    address="192.0.2.2:6783",
    state="established",
    peer=B,
    nickname="host-2",
    encrypted=True,
    mtu=1376,
    rtt=0.004,
    loss=0.01,
    sent_packets=12,
    sent_bytes=1200,
    received_packets=7,
    received_bytes=900,
    apart=True,
)
OTHER = Connection(outbound=True, address="192.0.2.3:6783", state="established", peer=C, nickname="host-3",
                   encrypted=True, path="relay through host-2", mtu=1300, sent_packets=3, sent_bytes=300)  # fmt: skip
RETRYING = Connection(outbound=True, address="192.0.2.4:6783", state="retrying", reason="no answer")
IPAM = Ipam(
    mode="registers",
    status="ready",
    electors=(
        Elector(peer=A, nickname="host-1", reachable=True, this=True),
        Elector(peer=C, nickname="host-3", reachable=False),
    ),
    range="10.32.0.0/12",
    block_size=24,
    blocks_total=4096,
    blocks_owned=5,
    blocks_free=4091,
    blocks_own=2,
    used=4,
    free=500,
    resting=2,
    pending_allocates=1,
    pending_claims=3,
    owners=(
        Owner(peer=A, nickname="host-1", blocks=2, addresses=512, share=2 / 4096, reachable=True, active=4),
        Owner(peer=C, nickname="host-3", blocks=1024, addresses=1 << 18, share=0.25, reachable=False),
    ),
)
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
    kernel="compiled",
    range="10.32.0.0/12",
    block="10.32.1.0/24 10.32.2.0/24",
    mtu=1376,
    uptime=3725.0,
    started=1_790_000_001.5,
    targets=("192.0.2.2",),
    connections=(NEIGHBOUR, OTHER, RETRYING),
    peers=(),
    host=Host(attachments=4, fenced=("web (10.32.9.2)",), repairs=6),
    counters={"drop_tag": 5, "drop_queue_full": 2, "rekeys": 8, "unknown": 1},
    warnings=("the password is weak",),
    workers=(
        Worker(number=0, pid=4711, uptime=60.0, restarts=0, cpu_seconds=1.5, resident_bytes=30_000_000),
        Worker(number=1, pid=0, uptime=0.0, restarts=1),
    ),
    gossip=Gossip(
        nodes=3,
        reachable=2,
        records=9,
        digest="0123456789abcdef",
        neighbours=(
            Neighbour(peer=B, nickname="host-2", reason="target", rtt=0.004, queued=0, unacknowledged=0),
        ),
        sent_messages=10,
        sent_bytes=2000,
        received_messages=11,
        received_bytes=2200,
    ),
    ipam=IPAM,
    unready="",
    traffic=Traffic(sent_packets=15, sent_bytes=1500, received_packets=7, received_bytes=900),
    traffic_others=Traffic(sent_packets=3, sent_bytes=300),
    process=Process(
        cpu_seconds=2.5, resident_bytes=50_000_000, virtual_bytes=500_000_000, open_files=35, max_files=1024
    ),
    kubernetes=Kubernetes(
        node="host-1",
        registered=True,
        requests=(
            Requests(verb="list", resource="nodes", code="200", count=2),
            Requests(verb="watch", resource="nodes", code="unreachable", count=7),
        ),
    ),
    policy=Policy(expected=True),
    lag=Lag(looks=100, seconds=0.5, within=tuple(range(90, 90 + len(LAG_SECONDS)))),
)  # fmt: skip
