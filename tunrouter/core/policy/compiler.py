"""From what is known to what this node enforces, and after a change only what it changes.

    policies ──> matches ─┐
    memory ──> isolation of this node's pods ──> the policies that matter ──> their groups ──> Ruleset

Law: after any series of changes the rule set equals the one that `compile` makes of the end alone. Work follows what
changed: a pod is tried against the groups in use, a policy against its namespace's pods here, and a group that is new
is filled from the rarest of its labels, or from its namespaces if those are few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

from tunrouter.core.policy.matches import matches
from tunrouter.core.policy.memory import Memory, claimed
from tunrouter.core.policy.model import DIRECTIONS, Address, Direction, Key, NamedPort, Placed, Pod, Policy
from tunrouter.core.policy.ruleset import CLOSED, OPEN, Endpoint, Group, Isolation, Match, Named, Ruleset

MANY: Final = 64
"""Addresses that look different at once: from so many on, groups are filled anew instead."""

Chain = tuple[Direction, Key]
M = TypeVar("M")


class Compiler:
    def __init__(self, node: str) -> None:
        self.memory = Memory(node)
        self.policies: dict[Key, Policy] = {}
        self._in_namespace: dict[str, set[Key]] = {}
        self._matches: dict[Chain, tuple[Match, ...]] = {}
        self._pods: dict[Address, Isolation] = {}
        self._permits: dict[Chain, tuple[Match, ...]] = {}
        self._groups: dict[Group, frozenset[Address]] = {}
        self._named: dict[Named, frozenset[Endpoint]] = {}
        self._ports: dict[Address, tuple[NamedPort, ...]] = {}
        """Of each address, as it was when the rule set was made last."""
        self._touched: set[Address] = set()
        self._isolating: set[str] = set()
        """Namespaces whose policies changed."""
        self._flipped: set[Group] = set()
        """Groups to be filled anew."""

    # --- what changes ------------------------------------------------------------------------------------------------
    # Each answers whether it was news: most of what an API tells of pods is about other things.
    def put_pod(self, pod: Pod) -> bool:
        if self.memory.pods.get(pod.key) == pod:
            return False
        self._touched |= self.memory.put(pod)
        return True

    def drop_pod(self, key: Key) -> None:
        self._touched |= self.memory.drop(key)

    def put_namespace(self, name: str, labels: Mapping[str, str]) -> bool:
        if self.memory.namespaces.get(name) == labels:
            return False
        self._relabel(name, labels)
        if name not in self.memory.namespaces:
            self._isolating.add(name)  # containers of pods that are not known may be free there
        self.memory.namespaces[name] = labels
        return True

    def drop_namespace(self, name: str) -> None:
        self._relabel(name, None)
        self._isolating.add(name)
        self.memory.namespaces.pop(name, None)

    def _relabel(self, name: str, labels: Mapping[str, str] | None) -> None:
        before = self.memory.namespaces.get(name)
        for group in self._groups:
            selector = group.namespaces
            if selector is None:
                continue
            was = before is not None and selector.selects(before)
            if was != (labels is not None and selector.selects(labels)):
                self._flipped.add(group)

    def put_policy(self, policy: Policy) -> bool:
        if self.policies.get(policy.key) == policy:
            return False
        self.drop_policy(policy.key)
        self.policies[policy.key] = policy
        self._in_namespace.setdefault(policy.namespace, set()).add(policy.key)
        for direction in DIRECTIONS:
            rules = policy.rules(direction)
            if rules is not None:
                self._matches[direction, policy.key] = matches(policy.namespace, direction, rules)
        return True

    def drop_policy(self, key: Key) -> None:
        if self.policies.pop(key, None) is not None:
            self._in_namespace[key[0]].discard(key)
            if not self._in_namespace[key[0]]:
                del self._in_namespace[key[0]]
            for direction in DIRECTIONS:
                self._matches.pop((direction, key), None)
        self._isolating.add(key[0])

    def place(self, containers: Iterable[Placed]) -> None:
        """All containers of this node."""
        self._touched |= self.memory.place(containers)

    # --- what follows ------------------------------------------------------------------------------------------------
    def ruleset(self) -> Ruleset:
        """A value of its own: what changes later does not change it."""
        self._isolate()
        self._fill()
        permits = self._in_use()
        if permits != self._permits:
            self._permits = permits
            self._refer()
        self._touched, self._isolating, self._flipped = set(), set(), set()
        return Ruleset(dict(self._pods), dict(self._permits), dict(self._groups), dict(self._named))

    def _isolate(self) -> None:
        here = self.memory.local()
        for address in self._pods.keys() - set(here):
            del self._pods[address]
        for address in here:
            if address in self._touched or address not in self._pods or self._namespace_of(address) in self._isolating:
                self._pods[address] = self.isolation(address)

    def _namespace_of(self, address: Address) -> str:
        if pod := self.memory.owner(address):
            return pod.namespace
        one = (self.memory.placed or {}).get(address)
        return one.pod[0] if one is not None and one.pod is not None else ""

    def isolation(self, address: Address) -> Isolation:
        """Of this node's pods; open for others that nobody has."""
        pod = self.memory.owner(address)
        if pod is not None:
            return Isolation(self.isolating(pod, "egress"), self.isolating(pod, "ingress"))
        one = (self.memory.placed or {}).get(address)
        if one is None or one.policed is False:
            return OPEN
        if one.pod is None or one.pod in self.memory.pods or one.pod[0] not in self.memory.namespaces:
            return CLOSED  # nobody knows whose it is, or it has ended, or is another's of that name, or what is there
        return Isolation(self._unless_free(one.pod[0], "egress"), self._unless_free(one.pod[0], "ingress"))

    def _unless_free(self, namespace: str, direction: Direction) -> tuple[()] | None:
        """Of a pod without known labels: where its namespace has no policies none can be about it."""
        return () if any((direction, key) in self._matches for key in self._in_namespace.get(namespace, ())) else None

    def is_free(self, namespace: str) -> bool:
        """Whether it is known to have no policies."""
        return namespace in self.memory.namespaces and namespace not in self._in_namespace

    def isolating(self, pod: Pod, direction: Direction) -> tuple[Key, ...] | None:
        """The policies that isolate it, in order of their names."""
        found = sorted(
            key
            for key in self._in_namespace.get(pod.namespace, ())
            if (direction, key) in self._matches and self.policies[key].selector.selects(pod.labels)
        )
        return tuple(found) or None

    def _in_use(self) -> dict[Chain, tuple[Match, ...]]:
        distinct = set(self._pods.values())
        chains = {
            (direction, key) for one in distinct for direction in DIRECTIONS for key in one.towards(direction) or ()
        }
        return {chain: self._matches[chain] for chain in chains}

    def _refer(self) -> None:
        """Groups and named ports are those that a match in use names."""
        used = {match for found in self._permits.values() for match in found}
        groups = {match.peer for match in used if isinstance(match.peer, Group)}
        named = {match.ports for match in used if isinstance(match.ports, Named)}
        self._groups = {
            group: self._groups[group] if group in self._groups else self._members(group) for group in groups
        }
        self._named = {name: self._named[name] if name in self._named else self._endpoints(name) for name in named}

    def _fill(self) -> None:
        many = len(self._touched) >= MANY
        for group, members in self._groups.items():
            if many or group in self._flipped:
                self._groups[group] = _same(members, self._members(group))
            elif self._touched:
                now = {address for address in self._touched if self._is_member(group, address)}
                if now != members & self._touched:
                    self._groups[group] = (members - self._touched) | now
        self._fill_named()

    def _fill_named(self) -> None:
        ports = {address: owner.ports if (owner := self.memory.owner(address)) else () for address in self._touched}
        before = {(address, port.number) for address in ports for port in self._ports.get(address, ())}
        for name, found in self._named.items():
            was = found & before
            now = {end for address, of in ports.items() for end in self._ends(name, address, of)}
            if was != now:
                self._named[name] = (found - was) | now
        for address, of in ports.items():
            self._ports[address] = of
            if not of:
                del self._ports[address]

    # --- who is meant ------------------------------------------------------------------------------------------------
    def _is_member(self, group: Group, address: Address) -> bool:
        pod = self.memory.owner(address)
        return pod is not None and self._meant(group, pod)

    def _meant(self, group: Group, pod: Pod) -> bool:
        if group.namespaces is None:
            there = pod.namespace == group.namespace
        else:
            # A namespace that is not known yet is not selected, not even by what asks for the absence of a label.
            labels = self.memory.namespaces.get(pod.namespace)
            there = labels is not None and group.namespaces.selects(labels)
        return there and group.pods.selects(pod.labels)

    def _members(self, group: Group) -> frozenset[Address]:
        memory = self.memory
        spaces = {group.namespace}
        if group.namespaces is not None:
            spaces = {name for name, labels in memory.namespaces.items() if group.namespaces.selects(labels)}
        candidates, there = memory.candidates(group.pods, group.namespace), memory.inhabitants(spaces)
        if sum(map(len, there)) < len(candidates):
            candidates = [key for keys in there for key in keys]
        found = []
        for key in candidates:
            pod = memory.pods[key]
            if pod.namespace in spaces and group.pods.selects(pod.labels):
                found += [address for address in claimed(pod) if memory.owner(address) is pod]
        return frozenset(found + [address for address, pod in memory.bound() if self._is_member(group, address)])

    def _endpoints(self, name: Named) -> frozenset[Endpoint]:
        memory = self.memory
        known = [memory.pods[key] for key in memory.with_port(name.protocol, name.name)]
        owned = [(address, pod) for pod in known for address in claimed(pod)] + list(memory.bound())
        return frozenset(
            end
            for address, pod in owned
            if memory.owner(address) is pod
            for end in self._ends(name, address, pod.ports)
        )

    def _ends(self, name: Named, address: Address, ports: Iterable[NamedPort]) -> Iterator[Endpoint]:
        if name.direction == "egress" or address in self._pods:
            for port in ports:
                if port.name == name.name and port.protocol == name.protocol:
                    yield address, port.number


def compile(  # noqa: A001
    node: str,
    pods: Iterable[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
    policies: Iterable[Policy],
    placed: Iterable[Placed] | None = None,
) -> Ruleset:
    """The rule set of `node`; without `placed` its pods are those that the cluster has there."""
    compiler = Compiler(node)
    for name, labels in namespaces.items():
        compiler.put_namespace(name, labels)
    for pod in pods:
        compiler.put_pod(pod)
    for policy in policies:
        compiler.put_policy(policy)
    if placed is not None:
        compiler.place(placed)
    return compiler.ruleset()


def _same(before: M, now: M) -> M:
    """The former object where nothing changed."""
    return before if before == now else now
