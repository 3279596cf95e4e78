"""What the policy process answers on its socket: the agent, and whoever asks why.

Law: an explanation tells of the policies as they are known here, and says where the kernel may differ from that.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address

import msgspec

from tunrouter.core.policy.model import DIRECTIONS, LAST_PORT, Key, Pod, Policy
from tunrouter.core.policy.verdict import End, Opening, Verdict, verdicts
from tunrouter.edge.api.policing import (
    ContainersCall,
    EnforceCall,
    ExplainCall,
    Explained,
    Heard,
    PoliciesCall,
    PolicyCall,
    PolicyRow,
    PolicyTable,
    Step,
)
from tunrouter.errors import AgentError
from tunrouter.npc.cluster import Cluster
from tunrouter.npc.containers import Containers
from tunrouter.npc.enforcement import Enforcement

NODE = "node"
PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")


class Answers:
    def __init__(self, cluster: Cluster, containers: Containers, enforcement: Enforcement) -> None:
        self._cluster = cluster
        self._compiler = cluster.compiler
        self._containers = containers
        self._enforcement = enforcement

    async def answer(self, call: PolicyCall) -> msgspec.Struct | None:
        match call:
            case ContainersCall():
                self._containers.tell(call)
                return Heard(self._enforcement.why)
            case EnforceCall():
                await self._containers.enforce(call)
                return None
            case ExplainCall():
                return self._explain(call)
            case PoliciesCall():
                return self._table()

    # --- why ---------------------------------------------------------------------------------------------------------
    def _explain(self, call: ExplainCall) -> Explained:
        protocol = call.protocol.upper()
        if protocol not in PROTOCOLS:
            raise AgentError(f"protocol {call.protocol!r} is not known", f"give one of {', '.join(PROTOCOLS)}")
        if not 0 <= call.port <= LAST_PORT:
            raise AgentError(f"port {call.port} is none", f"give one up to {LAST_PORT}")
        if awaited := self._cluster.awaited():
            raise AgentError(awaited, "try again when weave-npc is in touch with the Kubernetes API")
        source, destination = self._end(call.source), self._end(call.destination)
        if self._is_own_node(source, destination):
            source = source._replace(node=True)
        if source.node and destination.node:
            raise AgentError("neither end is a pod, so no policy is about it", "give a pod as one of them")
        found = verdicts(self._compiler, Opening(source, destination, protocol, call.port))
        steps = tuple(_step(one, source if one.direction == "egress" else destination) for one in found)
        allowed = all(step.allowed for step in steps)
        return Explained(
            allowed, self._called(source), self._called(destination), steps, self._hints(found, destination)
        )

    def _end(self, text: str) -> End:
        """Of `namespace/pod`, an address, or `node`. Raises AgentError."""
        if text == NODE:
            return End(node=True)
        memory = self._compiler.memory
        namespace, slash, name = text.partition("/")
        if slash:
            pod = memory.pods.get((namespace, name))
            if pod is None:
                raise AgentError(f"no pod {text} is known", "look with: kubectl get pods -A -o wide")
            placed = (address for address, bound in memory.bound() if bound is pod)
            address = next(iter((*pod.addresses, *placed)), None)
            return End(None if pod.host_network or pod.ended else pod, address)
        try:
            found = ip_address(text)
        except ValueError:
            raise AgentError(f"{text!r} is no pod and no address", "give namespace/pod, an address, or node") from None
        return End(memory.owner(found), found)

    def _is_own_node(self, source: End, destination: End) -> bool:
        """By the pods of the host network, which have their node's addresses."""
        if source.pod is not None or source.address is None or destination.pod is None:
            return False
        pods = (pod for pod in self._compiler.memory.pods.values() if pod.host_network)
        return any(pod.node == destination.pod.node and source.address in pod.addresses for pod in pods)

    def _called(self, end: End) -> str:
        if end.node:
            return "the pod's own node"
        if end.pod is not None:
            return f"pod {_name(end.pod)}" + (f" ({end.address})" if end.address is not None else "")
        pods = (pod for pod in self._compiler.memory.pods.values() if end.address in pod.addresses)
        unlisted = next((pod for pod in pods if pod.host_network or pod.ended), None)
        if unlisted is None:
            return f"{end.address}, no pod"
        why = "of the host network" if unlisted.host_network else "which has ended"
        return f"{end.address}, {_name(unlisted)} {why}"

    def _hints(self, found: list[Verdict], destination: End) -> tuple[str, ...]:
        hints = []
        if destination.pod is None and destination.address is not None and destination.address.is_private:
            hints.append(f"if {destination.address} is a Service's, ask for a pod behind it: policies see that one")
        if why := self._cluster.out_of_touch():
            hints.append(f"weave-npc is out of touch with the Kubernetes API, so this may be old: {why}")
        if why := self._enforcement.why:
            hints.append(f"this node's kernel may differ: {why}")
        policies = {policy.key: policy for one in found for policy in one.policies}
        hints += [f"{'/'.join(key)}: {fault}" for key, policy in policies.items() for fault in policy.faults]
        return tuple(hints)

    # --- which -------------------------------------------------------------------------------------------------------
    def _table(self) -> PolicyTable:
        memory = self._compiler.memory
        owners = {pod.key for address in memory.local() if (pod := memory.owner(address)) is not None}
        rows = tuple(self._row(policy, owners) for _, policy in sorted(self._compiler.policies.items()))
        pending = self._enforcement.pending or bool(self._enforcement.why)
        why = self._enforcement.why or ("a change is being written" if pending else self._cluster.out_of_touch())
        return PolicyTable(rows, in_force=not pending, why=why)

    def _row(self, policy: Policy, local: Collection[Key]) -> PolicyRow:
        memory = self._compiler.memory
        found = [memory.pods[key] for key in memory.candidates(policy.selector, policy.namespace)]
        pods = [pod for pod in found if pod.namespace == policy.namespace and policy.selector.selects(pod.labels)]
        pods = [pod for pod in pods if not pod.ended and not pod.host_network]
        here = sum(pod.key in local for pod in pods)
        directions = tuple(direction for direction in DIRECTIONS if policy.rules(direction) is not None)
        return PolicyRow(policy.namespace, policy.name, directions, len(pods), here, policy.faults)


def _name(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.name}"


def _step(verdict: Verdict, end: End) -> Step:
    names = tuple("/".join(policy.key) for policy in verdict.policies)
    return Step(
        direction=verdict.direction,
        pod=_name(end.pod) if end.pod is not None else "",
        allowed=verdict.allowed,
        why=verdict.why,
        policies=names,
        policy="/".join(verdict.policy.key) if verdict.policy is not None else "",
        rule=verdict.rule,
    )
