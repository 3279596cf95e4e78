"""The policy table of a namespace of the test's own, as the kernel tells it, so that two of them can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from tunrouter.bench.namespaces import PREFIX, Namespace, owner
from tunrouter.core.policy.nftables import FAMILY, TABLE

_NUMBERS = count()


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    made = Namespace(f"{PREFIX}-{owner()}-{name}{next(_NUMBERS)}")
    made.create()
    try:
        yield made
    finally:
        made.delete()


def apply(where: Namespace, text: str) -> None:
    where.run("nft", "-f", "-", stdin=text)


def listed(where: Namespace) -> dict[str, Any]:
    """Chains with their rules in order, sets and maps with their elements in none; without numbers of the kernel's."""
    found: dict[str, Any] = {}
    for entry in json.loads(where.run("nft", "-j", "list", "table", FAMILY, TABLE).stdout)["nftables"]:
        ((kind, value),) = entry.items()
        if kind == "rule":
            found[f"chain {value['chain']}"]["rules"].append(json.dumps(value["expr"]))
        elif kind != "metainfo":
            value.pop("handle", None)
            value["elem"] = sorted(json.dumps(element) for element in value.get("elem", ()))
            found[f"{kind} {value['name']}"] = value | {"rules": []}
    return found
