"""The agent's side of CNI: each verb done, or refused in the specification's words.

    ADD ──> wishes judged ──> attached ──> policies in force? ──> result    DEL, notes ──> detached, whatever is left
    CHECK ──> faults          GC ──> who is not named is detached           STATUS ──> may pods be added?

Law (CNI 1.1): DEL succeeds for what is gone. A pod's name here begins with its network's, so that GC of one network
never touches another's pods, nor those that a person attached. A pod is attached before its policies are asked for,
because the kernel lets nothing through of an address that it knows no policies of; one that does not get them is taken
off again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

import msgspec

from tunrouter.agent.attachments import RESERVED, Attachments, Wish
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.notes import Note, Notes
from tunrouter.agent.policing import Pod, Policing
from tunrouter.cni import errors, request, result
from tunrouter.cni.errors import CniError
from tunrouter.cni.request import Request
from tunrouter.core.node import Node
from tunrouter.edge.api import CniCall, CniReply, DetachCall
from tunrouter.edge.netns import Namespace
from tunrouter.errors import ConfigError, TunrouterError
from tunrouter.host import Attached, HostPlan
from tunrouter.host.plan import mac_of, port_mac_of

NOTHING: Final = CniReply(msgspec.Raw(b"null"))
log = logging.getLogger("tunrouter.cni")


class Cni:
    """`hindrance` says why no pod may be added at present, empty if any may."""

    def __init__(
        self,
        node: Node,
        host: HostSide,
        plan: HostPlan,
        attachments: Attachments,
        notes: Path,
        hindrance: Callable[[], str],
        policing: Policing,
        before_ours: str = "",
    ) -> None:
        """`before_ours`: what a person types before our own commands, which a cluster's hosts do not have."""
        self._node = node
        self._host = host
        self._plan = plan
        self._attachments = attachments
        self._notes = Notes(notes)
        self._hindrance = hindrance
        self._policing = policing
        self._before_ours = before_ours
        self._settling = asyncio.Lock()

    async def answer(self, call: CniCall) -> CniReply:
        version = ""
        try:
            asked = request.read(call.environment, bytes(call.config), self._local())
            version = asked.version
            said = await self._obey(asked, again=call.again)
        except CniError as error:
            return self._refuse(error, version or _version(call))
        except TunrouterError as error:
            return self._refuse(errors.of(error), version)
        return CniReply(msgspec.Raw(msgspec.json.encode(said))) if said is not None else NOTHING

    def _refuse(self, error: CniError, version: str) -> CniReply:
        details = error.details.replace("see: tunrouter ", f"see: {self._before_ours}tunrouter ")
        said = result.failed(CniError(error.code, error.message, details), version)
        return CniReply(msgspec.Raw(msgspec.json.encode(said)), failed=True)

    def _local(self) -> request.Local:
        host = self._host.host
        gateway = host.gateway if host is not None else None
        return request.Local(range=self._plan.range, mtu=self._plan.mtu, bridge=self._plan.bridge, gateway=gateway)

    async def _obey(self, asked: Request, *, again: bool) -> dict[str, Any] | None:
        match asked.command:
            case "ADD":
                return await self._add(asked, again=again)
            case "DEL":
                await self._detach(asked.name, asked.interface)
            case "CHECK":
                await self._check(asked)
            case "GC":
                await self._collect(asked)
            case "STATUS" if why := self._hindrance():
                raise CniError(errors.NOT_AVAILABLE, why, "see: tunrouter status")
        return None

    # --- one pod -----------------------------------------------------------------------------------------------------
    async def _add(self, asked: Request, *, again: bool) -> dict[str, Any]:
        await self._settle_one(asked)
        namespace = await self._open(asked, errors.INVALID_ENVIRONMENT)
        there = await self._host.find(namespace, asked.interface)
        if there is not None and not (again and there.name == asked.name):
            what = f"CNI_IFNAME {asked.interface} is there already, with the address {there.address}"
            raise CniError(errors.THERE_ALREADY, what, "delete it first")
        mtu = asked.mtu or self._plan.mtu
        wish = Wish(namespace, asked.name, asked.interface, mtu, asked.address, asked.routes, asked.pod)
        with self._policing.adding(asked.name, Pod.of(asked.pod, asked.uid)):
            pod = await self._attachments.attach(wish)
            await self._policy_ready(asked, pod)
        assert pod.gateway is not None  # who was just attached has one
        return result.added(
            asked,
            result.Pod(
                bridge=self._plan.bridge,
                bridge_mac=self._plan.bridge_mac,
                port=pod.port,
                port_mac=port_mac_of(pod.address),
                mac=mac_of(pod.address),
                address=pod.address,
                gateway=pod.gateway,
                mtu=pod.mtu,
            ),
        )

    async def _policy_ready(self, asked: Request, there: Attached) -> None:
        """Whoever is no pod of Kubernetes has no policies. Of a pod that does not get its own nothing is left."""
        pod = Pod.of(asked.pod, asked.uid)
        if pod is None:
            return
        try:
            await self._policing.enforce(there, pod)
        except TunrouterError as error:
            await self._undo(asked)
            raise CniError(errors.TRY_AGAIN, error.what, error.fix) from None

    async def _undo(self, asked: Request) -> None:
        """As far as it can be done: the runtime's own DEL follows."""
        try:
            await self._detach(asked.name, asked.interface)
        except TunrouterError as error:
            log.warning("%s of %s is to be added no more and could not be taken off: %s",
                        asked.interface, asked.name, error)  # fmt: skip

    async def _detach(self, name: str, interface: str) -> None:
        """By its name alone: its namespace may be gone, or be another container's by now."""
        await self._attachments.detach(DetachCall("", name, interface))

    async def _check(self, asked: Request) -> None:
        namespace = await self._open(asked, errors.UNKNOWN_CONTAINER)
        pod = await self._host.find(namespace, asked.interface)
        if pod is None or pod.name != asked.name:
            raise CniError(errors.UNKNOWN_CONTAINER, f"{asked.interface} of {asked.container} is not attached")
        previous = asked.previous or {}
        told = [each.get("address") for each in previous.get("ips") or ()]
        if f"{pod.address}/32" not in told:
            what = f"{asked.interface} has the address {pod.address}, and none of prevResult's"
            raise CniError(errors.NOT_AS_IT_WAS, what)
        told_mac = {each.get("mac") for each in previous.get("interfaces") or () if each.get("name") == asked.interface}
        if told_mac and mac_of(pod.address) not in told_mac:
            raise CniError(errors.NOT_AS_IT_WAS, f"{asked.interface} has another MAC than prevResult says")
        routes = _routes_by(str(pod.gateway), previous)
        if faults := await self._host.faults(namespace, asked.interface, routes):
            raise CniError(errors.NOT_AS_IT_WAS, "; ".join(faults), "delete the pod: its successor is set up anew")

    async def _open(self, asked: Request, otherwise: int) -> Namespace:
        """The pod's namespace; an error of the code `otherwise` where there is none."""
        try:
            return await self._host.open(asked.netns)
        except ConfigError as error:
            raise CniError(otherwise, f"CNI_NETNS: {error.what}", error.fix) from None

    # --- all pods ----------------------------------------------------------------------------------------------------
    async def _collect(self, asked: Request) -> None:
        """Whoever is ours, of this network, and not among the valid ones."""
        await self.settle()
        held = {(lease.container, lease.interface) for lease in self._node.allocator.addresses.leases()}
        held |= {(pod.name, pod.interface) for pod in await self._host.attached()}
        valid = {(request.pod_name(asked.network, container), interface) for container, interface in asked.valid}
        failed = []
        for name, interface in sorted(held - valid):
            if not name.startswith(request.pod_name(asked.network, "")) or interface == RESERVED:
                continue
            try:
                await self._detach(name, interface)
                log.info("collected %s of %s: the runtime does not know it any more", interface, name)
            except TunrouterError as error:
                failed.append(f"{interface} of {name}: {error.what}")
        if failed:
            raise CniError(errors.IO_FAILURE, f"{len(failed)} could not be collected; {failed[0]}")

    # --- what was to be deleted while the agent was away -------------------------------------------------------------
    async def settle(self) -> None:
        """Works off the notes that the plugin left; nothing while that is being done already."""
        if self._settling.locked():
            return
        async with self._settling:
            for path, note in self._notes.all():
                try:
                    await self._settle(path, note)
                except TunrouterError as error:
                    log.warning("%s of %s could not be taken off yet: %s", note.interface, note.container, error)

    async def _settle_one(self, asked: Request) -> None:
        """Its own deletion is older than a pod that is added now. Raises TunrouterError while it cannot be done."""
        async with self._settling:
            for path, note in self._notes.all():
                if note == Note(asked.network, asked.container, asked.interface):
                    await self._settle(path, note)

    async def _settle(self, path: Path, note: Note) -> None:
        name = request.pod_name(note.network, note.container)
        await self._detach(name, note.interface)
        log.info("took off %s of %s, as was asked while the agent was away", note.interface, name)
        self._notes.done(path)


def _routes_by(gateway: str, previous: dict[str, Any]) -> set[IPv4Network]:
    """Routes of a result that lead over our gateway."""
    try:
        return {IPv4Network(each.get("dst")) for each in previous.get("routes") or () if each.get("gw") == gateway}
    except ValueError as error:
        raise CniError(errors.INVALID_NETWORK, f"prevResult.routes: {error}") from None


def _version(call: CniCall) -> str:
    """Of a request that is not understood, for the error's own sake."""
    try:
        return str(request.decode(bytes(call.config)).get("cniVersion", ""))
    except CniError:
        return ""
