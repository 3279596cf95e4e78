"""The agent's snapshot of itself: what core, host and workers each know, in one value built when somebody asks."""

from __future__ import annotations

import time
from typing import NamedTuple

import tunrouter
from tunrouter.agent.control import Control
from tunrouter.agent.workers import Workers
from tunrouter.config import Config
from tunrouter.core import report, status
from tunrouter.core.report_ipam import ipam
from tunrouter.host import Host


class Facts(NamedTuple):
    """What does not change while the agent runs."""

    started: float
    underlay_mtu: int
    offloads: tuple[str, ...]
    warnings: tuple[str, ...]


def snapshot(
    config: Config, facts: Facts, control: Control, workers: Workers, host: Host, counters: dict[str, int]
) -> status.Snapshot:
    """`counters` are the agent's own; control's are added."""
    node, now = control.node, time.monotonic()
    local = node.local
    conflicts = tuple(
        f"{node.name_of(c.winner)} and {node.name_of(c.loser)} both announce {c.block}" for c in node.routes.conflicts
    )
    there = _of_host(host, facts)
    fenced = tuple(f"{pod} is cut off: this node lost the block of its address; detach it" for pod in there.fenced)
    return status.Snapshot(
        version=tunrouter.__version__,
        name=status.peer_name(local.id),
        nickname=local.name,
        id=f"{local.id:016x}",
        incarnation=local.incarnation,
        network=local.network,
        port=config.port,
        encryption=local.sealed,
        secrets=len(config.secrets),
        kernel=workers.kernel,
        range=config.range,
        block=" ".join(str(block) for block, _ in node.routes.own),
        mtu=local.pod_mtu,
        uptime=now - facts.started,
        targets=node.targets.names,
        connections=report.connections(node, now),
        peers=report.peers(node, now),
        host=there,
        counters=control.counters | counters,
        warnings=facts.warnings + conflicts + fenced + there.strangers,
        workers=workers.report(),
        discovery=local.discovery,
        routes=report.routes(node),
        gossip=report.gossip(node),
        ipam=ipam(node, now, there.fenced),
    )


def _of_host(host: Host, facts: Facts) -> status.Host:
    found, plan = host.facts(), host.plan
    return status.Host(
        bridge=plan.bridge,
        bridge_address=found.bridge_address,
        bridge_mode=found.bridge_mode,
        tun=plan.tun,
        tun_offloads=facts.offloads,
        underlay_mtu=facts.underlay_mtu,
        attachments=found.attachments,
        firewall=found.firewall,
        fenced=found.fenced,
        strangers=found.strangers,
    )
