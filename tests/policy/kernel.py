"""The kernel's table of policies, as it is listed: a value that is equal where the same is enforced."""

from __future__ import annotations

import json
from typing import Any, Final

from tunrouter.bench.lab import Host
from tunrouter.core.policy.nftables import FAMILY, TABLE

Json = dict[str, Any]
IN: Final = (FAMILY, TABLE)
Listing = dict[str, tuple[str, ...]]
"""By set, map or chain: elements in order, rules as they follow each other."""


def listing(host: Host) -> Listing:
    """Empty if there is no table."""
    done = host.namespace.run("nft", "-j", "list", "table", *IN, check=False)
    if done.returncode:
        return {}
    found: dict[str, list[str]] = {}
    for entry in json.loads(done.stdout)["nftables"]:
        ((kind, thing),) = entry.items()
        if thing.get("name", "").startswith("ended"):
            continue  # what is in them ends by itself
        if kind in ("set", "map"):
            found[f"{kind} {thing['name']}"] = sorted(map(json.dumps, thing.get("elem", [])))
        elif kind == "chain":
            hook = [str(thing[field]) for field in ("hook", "prio", "policy") if field in thing]
            found.setdefault(f"chain {thing['name']}", []).insert(0, " ".join(hook))
        elif kind == "rule":
            found.setdefault(f"chain {thing['chain']}", []).append(json.dumps(thing["expr"], sort_keys=True))
    return {name: tuple(rest) for name, rest in found.items()}
