"""The snapshot's addresses as text: who owns what as Weave showed it, then what Weave kept to itself.

Law: the lines of owners are Weave's to the character. Scripts take the first word of lines that end in `unreachable!`
and hand it to `rmpeer`, so no other line ends in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tunrouter.cli.text import labelled, node_name
from tunrouter.core.status import READY, Elector, Ipam, Owner, Snapshot

SHOWN: Final = 16
"""Fenced addresses that are listed; JSON has all of them."""


def summary(snapshot: Snapshot, *, wide: bool) -> list[str]:
    """The part of the summary that is about addresses."""
    found = snapshot.ipam
    own = snapshot.peers[0].blocks if snapshot.peers else ()
    lines = labelled(
        ("Service", "ipam"),
        ("Status", found.status if found else READY),
        ("Range", snapshot.range),
        ("DefaultSubnet", snapshot.range),
        ("Block", ", ".join(own) or snapshot.block or "none yet"),
    )
    if wide:
        lines += electors(found) if found else []
        lines += labelled(("MTU", snapshot.mtu))
    return lines


def report(found: Ipam | None, *, wide: bool) -> Iterator[str]:
    """`status ipam`; nothing for an agent that does not tell."""
    if found is None:
        return
    for owner in found.owners:
        yield _owner(owner, wide=wide)
    yield ""
    yield from labelled(("Status", found.status))
    yield from electors(found)
    yield from labelled(
        ("Blocks", _blocks(found)),
        ("Addresses", f"{found.used} used, {found.free} free, {found.resting} resting"),
        *(("Waiting", f"{one.what}: {one.why}") for one in found.pending),
    )
    if found.fenced:
        yield from labelled(("Fenced", some(found.fenced)))


def _owner(owner: Owner, *, wide: bool) -> str:
    share = f"{owner.share * 100:04.1f}% of total"
    line = f"{node_name(owner.peer, owner.nickname):<37} {owner.addresses:>8} IPs ({share}) {_note(owner)}".rstrip()
    return f"{line} blocks={owner.blocks}" if wide else line


def _note(owner: Owner) -> str:
    if owner.active is not None:
        return f"({owner.active} active)"
    return "" if owner.reachable else "- unreachable!"


def electors(found: Ipam) -> list[str]:
    """The cluster and who decides in it; nothing where blocks are given by hand."""
    if not found.cluster:
        return []
    return labelled(
        ("Cluster", f"{found.cluster}, epoch {found.epoch}"), *(("Elector", _elector(one)) for one in found.electors)
    )


def _elector(elector: Elector) -> str:
    name = node_name(elector.peer, elector.nickname)
    if elector.this:
        return f"{name} (this node)"
    return name if elector.reachable else f"{name} (no answer)"


def _blocks(found: Ipam) -> str:
    owned = f"{found.blocks_total} of /{found.block_size}: {found.blocks_owned} owned ({found.blocks_own} here)"
    return f"{owned}, given by hand" if found.mode == "static" else f"{owned}, {found.blocks_free} free"


def some(texts: tuple[str, ...]) -> str:
    """The first of them, and how many more."""
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
