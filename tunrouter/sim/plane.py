"""The data plane of a simulated node: obeys the seam's messages, and carries control's words without sealing them.

Law: what control says and hears is what it would with a real data plane, and as many bytes leave. Left out is what
control cannot tell: boxes are not sealed (their bytes are counted), there are no frames, budgets or queues. A packet is
a number that either arrives or does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tunrouter.core import bounds, seam, wire
from tunrouter.core.replay import ReplayWindow
from tunrouter.sim.network import Network, address

HEADER: Final = wire.OVERHEAD


class Boxed(NamedTuple):
    """A datagram of type 4."""

    base: int
    """The receiver's."""
    counter: int
    kind: int
    body: object
    size: int


class Body(NamedTuple):
    """Of a relayed datagram."""

    hops: int
    target: int
    origin: int
    item: object
    size: int


class _Session:
    def __init__(self, install: seam.Install) -> None:
        self.id = install.session
        self.node = install.node
        self.remote = install.remote
        self.endpoint = install.endpoint
        self.relayed = seam.relay_target(install.endpoint)
        self.delivers = self.backup = False
        self.counter = 0
        self.newest = -1
        self.window = ReplayWindow()


class Plane:
    def __init__(self, number: int, network: Network, tell: Callable[[seam.ToControl], None]) -> None:
        self._number = number
        self._network = network
        self._tell = tell
        self._sessions: dict[int, _Session] = {}
        self._used: dict[int, _Session] = {}
        self._hops: dict[int, int] = {}
        self.packets: list[tuple[int, int]] = []
        """Numbers of packets that arrived, each with the node that it came from."""

    def tell(self, message: seam.ToWorker) -> None:
        match message:
            case seam.Install():
                self._sessions[message.session] = _Session(message)
            case seam.SendControl(base, body, size) if base in self._sessions:
                self._seal(self._sessions[base], wire.CONTROL, body, max(size, HEADER + len(body)))
            case seam.SendRaw(endpoint, datagram):
                self._leave(endpoint, datagram, len(datagram))
            case seam.Deliver(base) if base in self._sessions:
                self._sessions[base].delivers = True
            case seam.Use(node, base) if base in self._sessions:
                self._used[node] = self._sessions[base]
            case seam.Retire(base) if base in self._sessions:
                session = self._sessions.pop(base)
                if self._used.get(session.node) is session:
                    del self._used[session.node]
                self._tell(seam.Retired(base, 0, 0, 0, 0))
            case seam.Move(base, endpoint) if base in self._sessions:
                self._sessions[base].endpoint = endpoint
                self._sessions[base].relayed = seam.relay_target(endpoint)
            case seam.Backup(base, on) if base in self._sessions:
                self._sessions[base].backup = on
            case seam.Hop(target, via):
                self._hops[target] = via
            case _:
                pass  # routes, sizes and known addresses: nothing that control would hear of again

    def send(self, node: int, number: int, size: int) -> None:
        """A packet for `node`; without a session it is lost, and control hears that one is wanted."""
        session = self._used.get(node)
        if session is None:
            self._tell(seam.Wanted(node))
        else:
            self._seal(session, wire.PACKET, number, HEADER + size)

    # --- the way out -------------------------------------------------------------------------------------------------
    def _seal(self, session: _Session, kind: int, body: object, size: int) -> None:
        boxed = Boxed(session.remote, session.counter, kind, body, size)
        session.counter += 1
        if not session.relayed:
            self._network.send(self._number, session.endpoint, boxed, size)
        if session.relayed or session.backup:
            self._relay(session.node, boxed, size)

    def _leave(self, endpoint: seam.Endpoint, item: object, size: int) -> None:
        if target := seam.relay_target(endpoint):
            self._relay(target, item, size)
        else:
            self._network.send(self._number, endpoint, item, size)

    def _relay(self, target: int, item: object, size: int) -> None:
        hop = self._direct(self._hops.get(target, 0))
        self._pass_on(hop, Body(bounds.RELAY_HOPS, target, seam.SELF, item, size))

    def _direct(self, node: int) -> _Session | None:
        session = self._used.get(node)
        return None if session is None or session.relayed or session.backup else session

    def _pass_on(self, hop: _Session | None, body: Body) -> None:
        if hop is None:
            self._tell(seam.HopWanted(body.target))
        else:
            there = body._replace(target=seam.SELF) if hop.node == body.target else body
            self._seal(hop, wire.RELAY, there, wire.RELAY_OVERHEAD + body.size)

    # --- the way in --------------------------------------------------------------------------------------------------
    def receive(self, source: int, item: object) -> None:
        self._open(address(source), item)

    def _open(self, source: seam.Endpoint, item: object) -> None:
        if isinstance(item, bytes):
            self._tell(seam.Raw(source, item))
            return
        assert isinstance(item, Boxed)
        session = self._sessions.get(item.base)
        if session is None or not session.window.check_and_advance(item.counter):
            return
        if item.counter > session.newest:
            session.newest = item.counter
            if source != session.endpoint and not session.relayed and not seam.relay_target(source):
                session.endpoint = source
                self._tell(seam.Moved(session.id, source))
        if item.kind == wire.CONTROL and isinstance(item.body, bytes):
            self._tell(seam.Control(session.id, source, item.body, item.size))
        elif item.kind == wire.PACKET and isinstance(item.body, int) and session.delivers:
            self.packets.append((session.node, item.body))
        elif isinstance(item.body, Body) and session.delivers and not seam.relay_target(source):
            self._on_body(session, item.body)

    def _on_body(self, session: _Session, body: Body) -> None:
        origin = body.origin or session.node
        if not body.target:
            self._open(seam.relayed(origin), body.item)
        elif body.hops > 1:
            hop = self._direct(body.target) or self._direct(self._hops.get(body.target, 0))
            if hop is None or hop.node != session.node:
                self._pass_on(hop, body._replace(hops=body.hops - 1, origin=origin))
