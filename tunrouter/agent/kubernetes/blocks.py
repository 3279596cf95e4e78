"""Leases of blocks: as the API has them for the core, and as the core wants them for the API.

Law: one Lease a block in a namespace that holds nothing else, named after the block; made in one request, deleted only
if it still is that object, never changed. It belongs to the Node object, so that the cluster's own collector frees it
when the Node is deleted. What is no block of our range is not ours, and left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Final

import msgspec

from tunrouter.agent.barrier import Barrier
from tunrouter.core import leases
from tunrouter.core.holdings import block_at
from tunrouter.core.outbox import CreateLease, DeleteLease, TakeLease
from tunrouter.edge.kube.client import Client
from tunrouter.edge.kube.faults import AlreadyExistsError, ConflictError, NotFoundError, RefusedError
from tunrouter.edge.kube.objects import LEASES, Lease, LeaseSpec, Metadata, OwnerReference, micro_time
from tunrouter.edge.kube.reflector import Key
from tunrouter.errors import ClusterError

NAMESPACE: Final = "weave-net-blocks"
PEER: Final = "tunrouter.io/peer"
"""Label with the id of the node that holds the block."""
LABELS: Final = {"name": "weave-net", "app.kubernetes.io/part-of": "tunrouter"}

ENDING: Final = "being terminated"
"""In the server's words for why it makes nothing more in a namespace."""

Hear = Callable[[leases.News], None]


class Blocks:
    """Of one node, and the listener of the Leases' reflector. `hear` reaches the core."""

    def __init__(
        self, client: Client, network: IPv4Network, length: int, node: str, peer: int, hear: Hear, barrier: Barrier
    ) -> None:
        self._barrier = barrier
        self._client = client
        self._network = network
        self._length = length
        self._node = node
        self._peer = peer
        self._hear = hear
        self._otherwise: set[str] = set()
        """Names of Leases of blocks that lie across ours, cut in another length."""

    # --- as the API has them -----------------------------------------------------------------------------------------
    def replaced(self, objects: Mapping[Key, Lease], /) -> None:
        """The whole list is told by `all`, when the cluster is known, too."""

    def changed(self, thing: Lease, /) -> None:
        if (lease := self.read(thing)) is not None:
            self._hear(leases.Made(lease))
        elif self._lies_across(thing.metadata.name):
            self._otherwise.add(thing.metadata.name)
            self.tell_cut()

    def gone(self, thing: Lease, /) -> None:
        if thing.metadata.name in self._otherwise:
            self._otherwise.remove(thing.metadata.name)
            self.tell_cut()
        if (place := self._place(thing.metadata.name)) is not None:
            self._hear(leases.Gone(place, thing.metadata.uid))

    def all(self, objects: Mapping[Key, Lease]) -> tuple[leases.Lease, ...]:
        names = (thing.metadata.name for thing in objects.values())
        self._otherwise = {name for name in names if self._lies_across(name)}
        return tuple(lease for lease in map(self.read, objects.values()) if lease is not None)

    def tell_cut(self) -> None:
        """A name is made once, but two names may be of the same addresses: nobody claims any then."""
        self._hear(leases.Cut(min(self._otherwise, default="")))

    def read(self, thing: Lease) -> leases.Lease | None:
        place = self._place(thing.metadata.name)
        if place is None:
            return None
        owner = next((one.uid for one in thing.metadata.owner_references if one.kind == "Node"), "")
        told = thing.metadata
        return leases.Lease(place, _holder(told.labels), revision(told.resource_version), told.uid, owner)

    def _lies_across(self, name: str) -> bool:
        block = _block(name)
        return block is not None and block.overlaps(self._network) and self._place(name) is None

    def _place(self, name: str) -> int | None:
        block = _block(name)
        if block is None or block.prefixlen != self._length or not block.subnet_of(self._network):
            return None
        offset = int(block.network_address) - int(self._network.network_address)
        return offset >> (self._network.max_prefixlen - self._length)

    def _name(self, place: int) -> str:
        block = block_at(self._network, self._length, place)
        return f"{block.network_address}-{block.prefixlen}"

    # --- as the core wants them --------------------------------------------------------------------------------------
    async def carry_out(self, effect: CreateLease | TakeLease | DeleteLease, owner: str) -> leases.Settled:
        """`owner`: the UID of this node's object. Whatever happens, the core hears what became of it."""
        try:
            if isinstance(effect, CreateLease):
                return await self._create(effect, owner)
            if isinstance(effect, TakeLease):
                return await self._take(effect)
            return await self._delete(effect)
        except ClusterError as error:
            return leases.Settled(effect.number, None, str(error))
        except Exception as error:
            with self._barrier:  # which says it, once
                raise
            return leases.Settled(effect.number, None, f"a defect, see the log: {error!r}")

    async def _create(self, effect: CreateLease, owner: str) -> leases.Settled:
        name = self._name(effect.place)
        node = OwnerReference(api_version="v1", kind="Node", name=self._node, uid=owner)
        wanted = Lease(
            metadata=Metadata(
                name=name, namespace=NAMESPACE, labels=LABELS | {PEER: f"{self._peer:016x}"}, owner_references=(node,)
            ),
            spec=LeaseSpec(holder_identity=self._node, acquire_time=micro_time(datetime.now(UTC))),
        )
        try:
            there = await self._client.create(LEASES, wanted)
        except AlreadyExistsError:
            there = await self._client.get(LEASES, name, NAMESPACE)
        except NotFoundError:
            raise ClusterError(f"the namespace {NAMESPACE} is missing", "apply the manifest again") from None
        except RefusedError as error:
            if ENDING not in error.what:
                raise
            what = f"the namespace {NAMESPACE} is being deleted"
            raise ClusterError(what, "apply the manifest again when it is gone") from None
        return leases.Settled(effect.number, self.read(there))

    async def _take(self, effect: TakeLease) -> leases.Settled:
        """In one request, which names the version that it replaces."""
        name = self._name(effect.place)
        there = await self._client.get(LEASES, name, NAMESPACE)
        if there.metadata.uid == effect.uid:
            labels = there.metadata.labels | LABELS | {PEER: f"{self._peer:016x}"}
            ours = msgspec.structs.replace(
                there,
                metadata=msgspec.structs.replace(there.metadata, labels=labels),
                spec=msgspec.structs.replace(there.spec, holder_identity=self._node),
            )
            try:
                there = await self._client.replace(LEASES, ours)
            except ConflictError:
                there = await self._client.get(LEASES, name, NAMESPACE)
        return leases.Settled(effect.number, self.read(there))

    async def _delete(self, effect: DeleteLease) -> leases.Settled:
        name = self._name(effect.place)
        try:
            await self._client.delete(LEASES, name, NAMESPACE, uid=effect.uid)
        except NotFoundError:
            return leases.Settled(effect.number, None)
        except ConflictError:
            return leases.Settled(effect.number, self.read(await self._client.get(LEASES, name, NAMESPACE)))
        return leases.Settled(effect.number, None)


def _block(name: str) -> IPv4Network | None:
    """Of a Lease of that name; None if it is of no block."""
    address, _, length = name.rpartition("-")
    try:
        return IPv4Network(f"{address}/{length}")
    except ValueError:
        return None


def revision(version: str) -> int:
    """A resourceVersion as what it is: a number that grows. 0 if it is none."""
    return int(version) if version.isdigit() else 0


def _holder(labels: Mapping[str, str]) -> int:
    """0 where nobody is named that we understand: the block is somebody's all the same."""
    try:
        return int(labels.get(PEER, ""), 16) & (1 << 64) - 1
    except ValueError:
        return 0
