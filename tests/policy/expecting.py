"""What the specification says of each cell of a live cluster, asked with the objects that its API server has."""

from __future__ import annotations

from collections.abc import Iterable

from tests.policy.cluster import NETWORKING, Cluster
from tests.policy.probing import Cell
from tests.policy.spec.cluster import Cluster as Said
from tests.policy.spec.evaluator import allowed


def expected(found: Cluster, cells: Iterable[Cell]) -> dict[Cell, bool]:
    """Other nodes reach pods with their bridge's address, and so does the own node."""
    do = found.scene.control.do
    bridges = {host.name: found.bridge(host) for host in found.hosts}
    said = Said(
        do("all", api_version="v1", kind="Pod"),
        do("all", api_version="v1", kind="Namespace"),
        do("all", api_version=NETWORKING, kind="NetworkPolicy"),
        {host.name: (host.address, bridges[host.name]) for host in found.hosts},
    )
    source = {**found.addresses, **bridges}
    return {cell: allowed(said, source[cell.source], cell.address, cell.protocol, cell.port) for cell in cells}
