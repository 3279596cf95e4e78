"""The agent's snapshot of itself: what core, host and workers each know, in one value built when somebody asks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import tunrouter
from tunrouter.agent.control import Control
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.underlay import Underlay
from tunrouter.agent.workers import Workers
from tunrouter.config import Config
from tunrouter.core import report, status
from tunrouter.core.local import Local
from tunrouter.core.node import Node
from tunrouter.core.report_ipam import ipam
from tunrouter.edge import processes


class Facts(NamedTuple):
    """What the agent was started with, and where its tunnel is."""

    started: float
    """On the clock that never jumps."""
    started_at: float
    """In seconds since 1970."""
    underlay: Underlay
    offloads: tuple[str, ...]


class Seen(NamedTuple):
    """What the agent itself has to say of this moment."""

    warnings: tuple[str, ...]
    unready: str
    counters: dict[str, int]
    """Its own; control's are added."""
    lag: status.Lag
    lately: dict[str, int]
    clock: status.Clock
    kubernetes: status.Kubernetes | None
    policy: status.Policy | None


def snapshot(
    config: Config, facts: Facts, seen: Seen, control: Control, workers: Workers, host: HostSide, *, cluster: bool
) -> status.Snapshot:
    """Without `cluster`, what there is to tell of every other node is left out: it takes as long as they are many."""
    node, now = control.node, time.monotonic()
    there = _of_host(host, facts)
    return status.Snapshot(
        **_identity(config, node.local),
        kernel=workers.kernel,
        block=" ".join(str(block) for block, _ in node.routes.own),
        uptime=now - facts.started,
        started=facts.started_at,
        targets=node.targets.names,
        connections=report.connections(node, now),
        peers=report.peers(node, now) if cluster else (),
        host=there,
        counters=control.counters | seen.counters,
        warnings=(*seen.warnings, *_conflicts(node), *_cut_off(there), *there.strangers),
        workers=workers.report(),
        routes=report.routes(node) if cluster else (),
        gossip=report.gossip(node),
        ipam=ipam(node, now, there.fenced),
        unready=seen.unready,
        traffic=report.traffic(node.tally.payload),
        traffic_others=report.traffic(node.tally.others),
        process=_process(),
        lag=seen.lag,
        lately=seen.lately,
        clock=seen.clock,
        kubernetes=seen.kubernetes,
        policy=seen.policy,
        endpoints=report.endpoints(node),
    )


def _identity(config: Config, local: Local) -> dict[str, Any]:
    """What this node was told to be."""
    return {
        "version": tunrouter.__version__,
        "name": status.peer_name(local.id),
        "nickname": local.name,
        "id": f"{local.id:016x}",
        "incarnation": local.incarnation,
        "network": local.network,
        "port": config.port,
        "encryption": local.sealed,
        "secrets": len(config.secrets),
        "range": config.range,
        "mtu": local.pod_mtu,
        "discovery": local.discovery,
    }


def _conflicts(node: Node) -> Iterator[str]:
    for conflict in node.routes.conflicts:
        winner, loser = node.name_of(conflict.winner), node.name_of(conflict.loser)
        yield f"{winner} and {loser} both announce {conflict.block}"


def _cut_off(there: status.Host) -> Iterator[str]:
    for pod in there.fenced:
        yield f"{pod} is cut off: this node lost the block of its address; detach it"


def _process() -> status.Process:
    used, files = processes.used(os.getpid()), processes.files()
    return status.Process(**used._asdict(), open_files=files.open, max_files=files.most)


def _of_host(side: HostSide, facts: Facts) -> status.Host:
    assert side.host is not None
    found, plan = side.host.facts(), side.host.plan
    return status.Host(
        bridge=plan.bridge,
        bridge_address=found.bridge_address,
        bridge_mode=found.bridge_mode,
        tun=plan.tun,
        tun_offloads=facts.offloads,
        underlay_mtu=facts.underlay.mtu,
        underlay=facts.underlay.chosen.address,
        underlay_device=facts.underlay.chosen.device,
        underlay_wish="" if facts.underlay.wish.of_all else str(facts.underlay.wish),
        attachments=found.attachments,
        firewall=found.firewall,
        fenced=found.fenced,
        strangers=found.strangers,
        repairs=side.repairs,
        repaired=tuple(side.repaired),
    )
