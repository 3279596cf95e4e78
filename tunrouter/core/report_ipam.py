"""Whose addresses are whose, for `status`: a view of the allocator, the mesh and the electors at one moment.

Law: nothing is kept for it, and what this node cannot know (addresses in use elsewhere) is not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tunrouter.core import status
from tunrouter.core.allocator import Allocator
from tunrouter.core.electors import Electors
from tunrouter.core.node import Node


def ipam(node: Node, now: float, fenced: tuple[str, ...]) -> status.Ipam:
    """`fenced` are addresses of pods that are cut off, as the host knows them."""
    allocator, registry = node.allocator, node.allocator.registry
    places = allocator.ipam.places
    owned = sum(len(node.routes.blocks(other)) for other in node.mesh.nodes) + len(node.routes.own)
    configuration = allocator.electors.configuration if allocator.leases is None else None
    quorum, known = _deciders(node)
    return status.Ipam(
        mode=_mode(allocator),
        status=_status(node, allocator),
        cluster=f"{registry.cluster:016x}" if registry.cluster else "",
        epoch=configuration.epoch if configuration is not None else 0,
        electors=tuple(_electors(node)),
        range=str(node.routes.range),
        block_size=node.local.block_length,
        blocks_total=places,
        blocks_owned=owned,
        blocks_free=max(0, places - owned),
        blocks_own=len(node.routes.own),
        used=allocator.addresses.used,
        free=allocator.addresses.free(now),
        resting=allocator.addresses.resting,
        pending=tuple(_pending(allocator)),
        pending_allocates=len(allocator.pending),
        pending_claims=len(allocator.claims),
        claims=tuple(status.Claimed(container=one.container, address=str(one.address)) for one in allocator.claims),
        quorum=quorum,
        known=known,
        owners=tuple(_owners(node)),
        fenced=fenced,
    )


def _mode(allocator: Allocator) -> Literal["static", "registers", "leases"]:
    if allocator.static:
        return "static"
    return "registers" if allocator.leases is None else "leases"


def _status(node: Node, allocator: Allocator) -> str:
    if allocator.static:
        return status.READY
    if allocator.leases is None:
        missing = _undecided(node, allocator.electors)
    else:
        missing = "" if allocator.ipam.announced else allocator.leases.hindrance
    if missing:
        return missing
    if allocator.pending or not allocator.ipam.announced:
        unreachable = any(not owner.reachable for owner in _owners(node))
        return status.UNREACHABLE if allocator.ipam.exhausted and unreachable else status.WAITING
    return status.READY


def _undecided(node: Node, electors: Electors) -> str:
    """Why the electors decide nothing; empty if they do."""
    configuration, founding = electors.configuration, electors.booth.founding
    if configuration is None and founding is not None and founding.size > 1:
        return status.awaiting_consensus(founding.quorum, len(electors.founders()))
    if configuration is None:
        return status.JOINING
    here = configuration.nodes & (node.mesh.here | {node.local.id})
    if len(here) < configuration.quorum:
        return status.no_quorum(len(here), len(configuration.nodes))
    return ""


def _deciders(node: Node) -> tuple[int, int]:
    """How many must agree, and how many of those that could are there."""
    if node.allocator.static or node.allocator.leases is not None:
        return 0, 0
    electors = node.allocator.electors
    if electors.configuration is not None:
        here = electors.configuration.nodes & (node.mesh.here | {node.local.id})
        return electors.configuration.quorum, len(here)
    founding = electors.booth.founding
    return (founding.quorum, len(electors.founders())) if founding is not None else (0, 0)


def _electors(node: Node) -> Iterator[status.Elector]:
    here, allocator = node.mesh.here, node.allocator
    for elector in sorted(allocator.electors.electors) if allocator.leases is None else ():
        this = elector == node.local.id
        yield status.Elector(
            peer=status.peer_name(elector), nickname=node.name_of(elector), reachable=this or elector in here, this=this
        )


def _pending(allocator: Allocator) -> Iterator[status.Pending]:
    why = allocator.ipam.reason or "every address is held or rests"
    for waiting in allocator.pending:
        container = waiting.request.container
        yield status.Pending(what=f"an address for {container}", why=why, container=container)
    if not allocator.static and not allocator.ipam.announced and allocator.ipam.reason:
        yield status.Pending(what="a block for this node", why=allocator.ipam.reason)


def _owners(node: Node) -> Iterator[status.Owner]:
    """This node first, then by name."""
    size, own = 1 << (32 - node.local.block_length), node.local.id
    here, total = node.mesh.here, node.routes.range.num_addresses
    others = sorted((node.name_of(other), other) for other in node.mesh.nodes if node.routes.blocks(other))
    for _, owner in [(node.local.name, own), *others]:
        blocks = len(node.routes.own) if owner == own else len(node.routes.blocks(owner))
        yield status.Owner(
            peer=status.peer_name(owner),
            nickname=node.name_of(owner),
            blocks=blocks,
            addresses=blocks * size,
            share=blocks * size / total,
            reachable=owner == own or owner in here,
            active=node.allocator.addresses.used if owner == own else None,
        )
