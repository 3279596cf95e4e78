"""How this node comes to the registers that say whose a block is: `init_peers`, `seed` or `observer`, or in one word
Weave's --ipalloc-init and IPALLOC_INIT.

Law: nothing here overrides anything. Two ways to found a cluster are how two clusters are founded, so who gives two is
told both places; and who gives a block by hand leaves the nodes nothing to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from tunrouter.config import values
from tunrouter.config.model import Config, Key, Origin
from tunrouter.config.sources import Document, Sources, find
from tunrouter.core import bounds
from tunrouter.errors import ConfigError

WAYS: Final = ("init_peers", "seed", "observer")
IPALLOC_INIT: Final = Key("ipalloc_init", str, values.ipalloc_init, "consensus=3", weave_variable="IPALLOC_INIT")
"""Another word for one of `WAYS`; no key of its own."""


def translate(sources: Sources, fields: dict[str, object], origins: dict[str, Origin]) -> None:
    """Puts what Weave's flag or variable says under its key; raises ConfigError where several ways are given."""
    found = find(IPALLOC_INIT, sources._replace(document=Document(None, {})))
    given = [origins[name].where for name in WAYS if fields.get(name)] + ([found[1].where] if found else [])
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} both say how the cluster is founded", "keep one of them")
    if found:
        name, value = cast("tuple[str, object]", found[0])
        fields[name], origins[name] = value or _with_peers(fields, found[1]), found[1]


def _with_peers(fields: Mapping[str, object], origin: Origin) -> int:
    """As Weave counted: those that are named, and this node."""
    count = len(cast("tuple[str, ...]", fields.get("peers", ()))) + 1
    if count > bounds.MAX_INIT_PEERS:
        what = f"{origin.where}: {count} nodes are more than the {bounds.MAX_INIT_PEERS} that may found a cluster"
        raise ConfigError(what, f"say how many do: {origin.example('consensus=3')}")
    return count


def refuse_in_kubernetes(config: Config, origins: Mapping[str, Origin]) -> None:
    """Raises ConfigError for what has no meaning where the cluster's Leases say whose a block is."""
    for name in ("block", *WAYS):
        if config.kubernetes and name in origins and getattr(config, name):
            cluster, other = origins["kubernetes"].where, origins[name].where
            raise ConfigError(
                f"{cluster}: Leases decide whose a block is, so {other} decides nothing", f"leave out {other}"
            )


def refuse_beside_block(config: Config, origins: Mapping[str, Origin]) -> None:
    """Raises ConfigError for what has no meaning on a node whose block its operator gave."""
    for name in ("block_size", *WAYS):
        if config.block and name in origins and getattr(config, name):
            block, other = origins["block"].where, origins[name].where
            raise ConfigError(
                f"{block} gives this node its block by hand, so {other} has nothing to decide",
                f"leave out {block}, or {other}",
            )


def describe(config: Config) -> str:
    """What `up` is going to do about blocks, in a few words."""
    if config.block:
        return f"block {config.block}"
    if config.kubernetes:
        return f"blocks of /{config.block_size}, by the cluster's Leases"
    return f"blocks of /{config.block_size}, {_way(config)}"


def _way(config: Config) -> str:
    if config.observer:
        return "joins and never founds"
    if config.seed:
        return f"first electors {', '.join(config.seed)}"
    if config.init_peers > 1:
        return f"a majority of {config.init_peers} founds"
    return "joins its peers" if config.peers and not config.init_peers else "founds a cluster alone unless it has one"
