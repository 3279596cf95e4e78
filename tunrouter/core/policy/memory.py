"""What is known of the cluster, and whose each address is.

    pods, namespaces (the API) ──> claims of addresses ──┐
    containers of this node (who attached them) ─────────┴──> one owner an address

Law: an address has one owner at a time. On this node it is the container that has it; what becomes of the Pod object
meanwhile changes nothing until the container is gone. Elsewhere it is the youngest pod that claims it. Pods of the host
network and those that have ended own nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeVar

from tunrouter.core.policy.model import EVERYTHING, Address, Key, Placed, Pod, Protocol, Selector

_NOBODY: Final[frozenset[Key]] = frozenset()


class Memory:
    """Of one node's policy process. Each change answers with the addresses whose owner may look different now."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.pods: dict[Key, Pod] = {}
        self.namespaces: dict[str, Mapping[str, str]] = {}
        """Their labels."""
        self.placed: dict[Address, Placed] | None = None
        """None until who attaches containers has told them."""
        self._bound: dict[Address, Pod] = {}
        """Whom each container of this node was made for, as last known."""
        self._containers: dict[Key, set[Address]] = {}
        """Of `placed`, by the pods that they were made for."""
        self._claims: dict[Address, set[Key]] = defaultdict(set)
        self._by_namespace: dict[str, set[Key]] = defaultdict(set)
        self._by_label: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._by_port: dict[tuple[Protocol, str], set[Key]] = defaultdict(set)
        self._on_node: set[Key] = set()

    # --- what changes ------------------------------------------------------------------------------------------------
    def put(self, pod: Pod) -> set[Address]:
        known = self.pods.get(pod.key)
        touched = self._unlist(known) if known is not None else set()
        self.pods[pod.key] = pod
        self._by_namespace[pod.namespace].add(pod.key)
        for label in pod.labels.items():
            self._by_label[label].add(pod.key)
        for port in pod.ports:
            self._by_port[port.protocol, port.name].add(pod.key)
        if pod.node == self.node:
            self._on_node.add(pod.key)
        for address in claimed(pod):
            self._claims[address].add(pod.key)
            touched.add(address)
        return touched | self._bind(pod)

    def drop(self, key: Key) -> set[Address]:
        pod = self.pods.pop(key, None)
        # Of a container that another of the name was made for nobody knows more than that.
        return self._unlist(pod) | self._containers.get(key, set()) if pod is not None else set()

    def place(self, containers: Iterable[Placed]) -> set[Address]:
        """All that this node has."""
        before, now = self.placed, {one.address: one for one in containers}
        self.placed = now
        self._containers = {}
        for one in now.values():
            if one.pod is not None:
                self._containers.setdefault(one.pod, set()).add(one.address)
        touched = {address for address, one in now.items() if before is None or before.get(address) != one}
        touched |= {address for address in before or self._here() if address not in now}
        for address in touched:
            self._bound.pop(address, None)
            made = now.get(address)
            if made is not None and made.pod and (pod := self.pods.get(made.pod)) and _made_for(made, pod):
                self._bound[address] = pod
        return touched

    def _here(self) -> set[Address]:
        """Until it was told: as the cluster says."""
        pods = (self.pods[key] for key in self._on_node)
        return {address for pod in pods for address in claimed(pod) if self.owner(address) is pod}

    def _bind(self, pod: Pod) -> set[Address]:
        """The containers of its name; those that were made for it are its."""
        named = self._containers.get(pod.key, set())
        for address in named:
            one, bound = self.placed[address], self._bound.get(address)  # type: ignore[index]
            # Where the runtime did not say for whom it was made, its node does that, in the pod's status.
            said = not one.uid and address in claimed(pod)
            if _made_for(one, pod) and (bound is None or bound.uid == pod.uid or said):
                self._bound[address] = pod
        return named

    def _unlist(self, pod: Pod) -> set[Address]:
        _discard(self._by_namespace, pod.namespace, pod.key)
        self._on_node.discard(pod.key)
        for label in pod.labels.items():
            _discard(self._by_label, label, pod.key)
        for port in pod.ports:
            _discard(self._by_port, (port.protocol, port.name), pod.key)
        released = set(claimed(pod))
        for address in released:
            _discard(self._claims, address, pod.key)
        return released

    # --- whose an address is -----------------------------------------------------------------------------------------
    def owner(self, address: Address) -> Pod | None:
        """None: no pod's, or of a pod that is not known."""
        one = (self.placed or {}).get(address)
        if one is not None and (one.pod is not None or not one.policed):
            pod = self._bound.get(address)
            return pod if pod is not None and not (pod.ended or pod.host_network) else None
        claims = self._claims.get(address, _NOBODY)
        return max((self.pods[key] for key in claims), key=lambda pod: (pod.born, pod.uid), default=None)

    def bound(self) -> Iterable[tuple[Address, Pod]]:
        """This node's containers whose pods are known."""
        return self._bound.items()

    def local(self) -> Iterable[Address]:
        """Of this node."""
        return self.placed if self.placed is not None else self._here()

    # --- who is selected ---------------------------------------------------------------------------------------------
    def candidates(self, selector: Selector, namespace: str) -> Collection[Key]:
        """Whoever it may select, and more: by the rarest label. In one namespace, or with "" in all."""
        found: Collection[Key] = self._by_namespace.get(namespace, _NOBODY) if namespace else self.pods
        size = len(found)
        for requirement in selector.requirements if selector != EVERYTHING else ():
            if requirement.operator != "In":
                continue
            sets = [self._by_label.get((requirement.key, value), _NOBODY) for value in requirement.values]
            if sum(map(len, sets)) < size:
                found = sets[0] if len(sets) == 1 else set().union(*sets)
                size = len(found)
        return found

    def inhabitants(self, namespaces: Iterable[str]) -> list[Collection[Key]]:
        """Of each that has any."""
        return [self._by_namespace[name] for name in namespaces if name in self._by_namespace]

    def with_port(self, protocol: Protocol, name: str) -> Iterable[Key]:
        return self._by_port.get((protocol, name), _NOBODY)


def claimed(pod: Pod) -> tuple[Address, ...]:
    """The addresses that are its own, if nobody younger has them."""
    return () if pod.ended or pod.host_network else pod.addresses


def _made_for(one: Placed, pod: Pod) -> bool:
    return not one.uid or not pod.uid or one.uid == pod.uid


K = TypeVar("K")


def _discard(index: dict[K, set[Key]], at: K, key: Key) -> None:
    index[at].discard(key)
    if not index[at]:
        del index[at]
