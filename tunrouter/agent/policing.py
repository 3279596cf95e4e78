"""The agent and the policy process of its node: who is attached, and that a pod's policies are in force.

    attach, detach, reconcile ──> changed ──┐
    every two seconds ──────────────────────┴──> all containers        CNI ADD ──> this one ──> in force, or why not

Law: each time it is told all of them, so that one that was started again knows them; and a list never begins its way
before an earlier one is answered, so that none of before a pod's ADD comes after it. That nobody answers ends nothing:
the kernel keeps the rules that it has, and only no pod is added.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from tunrouter.agent.attachments import Attachments
from tunrouter.agent.hostside import HostSide
from tunrouter.agent.kubernetes import NETWORK, kubectl
from tunrouter.cni import request
from tunrouter.config import Config
from tunrouter.core import status
from tunrouter.core.pool import Lease
from tunrouter.edge.api.asking import ask
from tunrouter.edge.api.policing import Container, ContainersCall, EnforceCall, Heard, PolicyCall
from tunrouter.errors import AgentError, AgentUnreachableError
from tunrouter.host import Attached, drop_policies

WHO: Final = "weave-npc"
AGAIN_SECONDS: Final = 2.0
"""Between two lists, if nothing changes."""
SETTLE_SECONDS: Final = 0.05
"""From one list to the next: many pods come as one."""
FIRST_SECONDS: Final = 0.1
"""Until it is tried again where nobody answers, twice as long each time, up to `AGAIN_SECONDS`."""
TELL_SECONDS: Final = 2.0
ENFORCE_SECONDS: Final = 5.0
"""What an ADD waits in all."""
RETURN_SECONDS: Final = 0.25
"""Of them, for an answer's way back."""
START_SECONDS: Final = 10.0
"""Two containers of a pod do not start at once: before that it is no news that nobody answers."""
LONG_SECONDS: Final = 60.0
"""Silence for so long is no restart any more."""
log = logging.getLogger("tunrouter.policy")


class Pod(NamedTuple):
    """Of Kubernetes."""

    namespace: str
    name: str
    uid: str = ""
    """Empty if its runtime did not say, or an earlier agent heard it."""

    @classmethod
    def of(cls, text: str, uid: str = "") -> Pod | None:
        """As a lease has it: network, namespace and name."""
        parts = text.split("/")
        return cls(parts[1], parts[2], uid) if len(parts) == 3 else None


class Policing:
    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.expected = config.kubernetes and config.expect_npc
        """Whether there is such a process. If not, nobody is told or waited for."""
        self._kubernetes = config.kubernetes
        self._path = config.npc_socket
        self._see = f"see: {kubectl.logs(config.name, WHO)}"
        self._loop = loop
        self._attached: Callable[[], Collection[Attached]] = tuple
        self._held: Callable[[], Iterable[Lease]] = tuple
        self._pods: dict[str, Pod] = {}
        """Of containers that were added in this life, or are being added."""
        self._told: set[str] = set()
        """Names of the last list."""
        self._changed = asyncio.Event()
        self._telling = asyncio.Lock()
        self._heard = False
        """Ever."""
        self._silent_since: float | None = self._loop.time()
        self._why = f"{WHO} was not asked yet"
        self._said = False
        """That it does not answer."""
        self._amiss = ""
        """What it said last, why not all is in force."""

    def watch(
        self,
        attachments: Attachments,
        attached: Callable[[], Collection[Attached]],
        held: Callable[[], Iterable[Lease]],
    ) -> None:
        """Who is on the bridge, and whose each address is."""
        attachments.changed = self.changed
        self._attached, self._held = attached, held

    def changed(self) -> None:
        """Somebody came or went."""
        self._changed.set()

    async def begin(self, host: HostSide) -> None:
        """Rules that nobody keeps any more would hold for ever, and close whoever comes."""
        if self._kubernetes and not self.expected:
            for what in await host.call(drop_policies):
                log.info("removed the %s: an earlier %s made it, and none is expected on this node", what, WHO)

    # --- what is known of it -----------------------------------------------------------------------------------------
    @property
    def _silence(self) -> float:
        """For so many seconds; 0 while it answers."""
        return self._loop.time() - self._silent_since if self.expected and self._silent_since is not None else 0.0

    def hindrance(self) -> str:
        """Why no pod can be added; empty while that may be over in a moment."""
        return self._why if self._silence >= LONG_SECONDS else ""

    def trouble(self) -> str:
        """The same as whoever runs the cluster should hear it."""
        why = self.hindrance()
        return f"no pod can be added to this node: {why}; {self._see}" if why else ""

    @property
    def state(self) -> status.Policy | None:
        """None outside of Kubernetes."""
        if not self._kubernetes:
            return None
        silent = self._silence if self._silent_since is not None and self.expected else None
        why = self._why if silent is not None else ""
        amiss = self._amiss if silent is None and self.expected else ""
        return status.Policy(expected=self.expected, silent=silent, why=why, amiss=amiss, hindrance=self.hindrance())

    # --- telling -----------------------------------------------------------------------------------------------------
    async def keep(self) -> None:
        """Until it is cancelled; at once where there is nobody to tell."""
        pause = FIRST_SECONDS
        while self.expected:
            self._changed.clear()
            if await self._tell():
                pause = FIRST_SECONDS
                await self._rest(AGAIN_SECONDS)
            else:
                await self._rest(pause)
                pause = min(2 * pause, AGAIN_SECONDS)

    async def _rest(self, seconds: float) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - SETTLE_SECONDS):
                await self._changed.wait()

    async def _tell(self) -> bool:
        """Whether it heard."""
        try:
            async with asyncio.timeout(TELL_SECONDS), self._telling:
                await self._ask_all()
        except TimeoutError:
            self._miss(f"{WHO} did not answer on {self._path} within {TELL_SECONDS:g} s")
        except AgentUnreachableError as error:
            self._miss(error.what)
        except AgentError as error:
            self._miss(f"{WHO} refuses: {error.what}")
        else:
            return True
        return False

    async def _ask_all(self) -> None:
        answer = await self._ask(ContainersCall(self._containers()))
        try:
            heard = msgspec.json.decode(answer, type=Heard | None)
        except msgspec.MsgspecError as error:
            raise AgentError(f"its answer is not understood: {error}") from None
        self._amiss = heard.why if heard is not None else ""  # one of an earlier version says nothing

    async def _ask(self, call: PolicyCall) -> msgspec.Raw:
        answer = await ask(self._path, call, WHO)
        if self._said:
            log.info("%s answers again, after %.1f s", WHO, self._silence)
        self._heard, self._said, self._silent_since = True, False, None
        return answer

    def _miss(self, why: str) -> None:
        self._why = why
        if self._silent_since is None:
            self._silent_since = self._loop.time()
        if not self._said and (self._heard or self._silence >= START_SECONDS):
            self._said = True
            log.warning("%s; pods cannot be added until it answers, and rules stay as they are; %s", why, self._see)

    def _containers(self) -> tuple[Container, ...]:
        there = self._attached()
        names = {one.name for one in there}
        for gone in self._told - names:
            self._pods.pop(gone, None)
        self._told = names
        pods = {lease.container: Pod.of(lease.pod) for lease in self._held() if lease.pod} | self._pods
        return tuple(self._container(one, pods.get(one.name)) for one in there)

    def _container(self, there: Attached, pod: Pod | None) -> Container:
        """One of the cluster's network is a pod even if nobody knows which: it is not opened by mistake."""
        address, network = str(there.address), request.network_of(there.name)
        if pod is None:
            return Container(address, there.name, cni=network == NETWORK)
        return Container(address, there.name, bool(network), pod.namespace, pod.name, pod.uid)

    # --- a pod that is added -----------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def adding(self, name: str, pod: Pod | None) -> Iterator[None]:
        """Whose this container is, is known before it is on the bridge; if what follows fails it was nobody's."""
        if self.expected and pod is not None:
            self._pods[name] = pod
        try:
            yield
        except BaseException:
            self._pods.pop(name, None)
            raise

    async def enforce(self, there: Attached, pod: Pod) -> None:
        """Returns when its policies are in force. Raises AgentError with the words of who enforces them, or ours."""
        if not self.expected:
            return
        deadline = self._loop.time() + ENFORCE_SECONDS
        why = f"{WHO} did not answer on {self._path} within {ENFORCE_SECONDS:g} s"
        try:
            async with asyncio.timeout_at(deadline):
                while missed := await self._enforce(self._container(there, pod), deadline):
                    why = missed
                    # It may be back in a moment: whoever replaces it does so without a word to us.
                    await asyncio.sleep(FIRST_SECONDS)
        except TimeoutError:
            raise AgentError(why, self._see) from None

    async def _enforce(self, container: Container, deadline: float) -> str:
        """Why nobody answered; empty if that is done."""
        try:
            async with self._telling:  # a list of before this container was attached has arrived
                if self._silent_since is not None:
                    await self._ask_all()  # it may be another one, that knows nobody
            await self._ask(EnforceCall(container, max(deadline - self._loop.time() - RETURN_SECONDS, 0.0)))
        except AgentUnreachableError as error:
            self._miss(error.what)
            return error.what
        except AgentError as error:
            raise AgentError(error.what, error.fix or self._see) from None
        return ""
