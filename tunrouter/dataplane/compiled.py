"""The compiled kernel's driver: control's messages become calls of C (c/api.h), and what C tells becomes messages.

Packets never come here but those that left the fast way: handshakes, what waits for a session or an identity, and what
is too big for its path. Law: between `tr_pause` and `tr_resume` the kernel's threads stand still; only then is its
state touched. They call the functions below with their gate held, so none of these calls the kernel.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

from tunrouter.core import bounds, packet, seam
from tunrouter.dataplane import sockaddr
from tunrouter.dataplane._kernel import ffi, lib
from tunrouter.dataplane.kernel import Emit, Loop, Tun, Udp
from tunrouter.dataplane.sodium import library
from tunrouter.dataplane.strangers import Strangers
from tunrouter.dataplane.waiting import Waiting
from tunrouter.errors import HostError

log = logging.getLogger(__name__)

Pointer = Any
"""A cffi pointer."""

_NACL: Final = {
    "subkey": "crypto_core_hsalsa20",
    "stream_xor": "crypto_stream_salsa20_xor",
    "authenticate": "crypto_onetimeauth_poly1305",
    "verify": "crypto_onetimeauth_poly1305_verify",
}
_BOX: Final = {"seal": "crypto_secretbox", "open": "crypto_secretbox_open"}
_WIDE: Final = {"Salsa20": lib.TR_WIDE_STREAM, "Poly1305": lib.TR_WIDE_TAG}
_JOINS: Final = {"tso4": 1, "tso6": 2, "uso4": 4, "uso6": 8}
_EVENTS: Final = (
    "stranger",
    "control",
    "hold",
    "wait",
    "explain",
    "refused",
    "moved",
    "unrouted",
    "hop_wanted",
    "astray",
)


class Io(Protocol):
    """How the kernel's frames and datagrams come and go: a `tr_io` and what keeps it alive."""

    @property
    def table(self) -> Pointer: ...

    def close(self) -> None: ...


class Descriptors:
    """A host's own TUN queue and UDP sockets."""

    def __init__(self, tun: Tun, udps: Sequence[Udp]) -> None:
        fds = {udp.version: udp.fileno() for udp in udps}
        self.table = ffi.new("tr_io *")
        self._at = lib.tr_descriptors_open(tun.fileno(), fds.get(4, -1), fds.get(6, -1), self.table)
        if not self._at:
            raise HostError("no memory for the packet kernel", "free some memory")

    def close(self) -> None:
        lib.tr_descriptors_close(self._at)


class CompiledKernel:
    """One worker's data plane in C: a TUN queue and at most one UDP socket a family."""

    name: Final = "compiled"

    def __init__(
        self, tun: Tun, udps: Sequence[Udp], emit: Emit, io: Io | None = None, nacl: Pointer | None = None
    ) -> None:
        self._io = io or Descriptors(tun, udps)
        self._nacl = nacl or open_nacl()
        self._emit = emit
        self._own = dict.fromkeys(NAMES, 0)
        """What is counted here and not in C."""
        self._counters = dict(self._own)
        self._values = ffi.new("uint64_t[]", len(NAMES))
        self._reported: dict[str, int] = {}
        self._strangers = Strangers(self._own, emit)
        self._waiting = Waiting(self._own, emit)
        self._held: dict[int, list[bytes]] = {}
        self._held_count = 0
        self._unrouted = False
        self._handle = ffi.new_handle(self)
        self._at = self._open(tun, udps)
        self._obey: dict[type, Callable[[Any, float], None]] = {
            seam.Install: self._install,
            seam.Deliver: self._deliver,
            seam.Use: self._use,
            seam.Retire: self._retire,
            seam.Move: self._move,
            seam.Route: self._route,
            seam.Unroute: self._unroute,
            seam.PathMtu: self._path_mtu,
            seam.SendControl: self._send_control,
            seam.SendRaw: self._send_raw,
            seam.Hop: self._hop,
            seam.Backup: self._backup,
            seam.Relayed: self._relayed,
        }

    def _open(self, tun: Tun, udps: Sequence[Udp]) -> Pointer:
        events = ffi.new("tr_events *", {"self": self._handle} | {name: getattr(lib, f"on_{name}") for name in _EVENTS})
        joins = sum(_JOINS[feature] for feature in tun.features if feature in _JOINS)
        versions = sum({4: 1, 6: 2}[version] for version in {udp.version for udp in udps})
        at = lib.tr_open(self._io.table, events, self._nacl, joins, versions)
        if not at:
            raise HostError("no memory for the packet kernel", "free some memory")
        return ffi.gc(at, lib.tr_close)

    # --- packets -----------------------------------------------------------------------------------------------------
    def drain_tun(self, now: float) -> bool:
        return bool(lib.tr_drain_tun(self._at, now))

    def drain_udp(self, udp: Udp, now: float) -> bool:
        return bool(lib.tr_drain_udp(self._at, udp.version, now))

    def loops(self, tun: Tun, udps: Sequence[Udp]) -> Sequence[Loop]:
        """One thread seals, one opens; both wait in C, where a wakeup wakes no interpreter."""
        fds = {udp.version: udp.fileno() for udp in udps}
        return (
            lambda stop: lib.tr_run_tun(self._at, tun.fileno(), stop),
            lambda stop: lib.tr_run_udp(self._at, fds.get(4, -1), fds.get(6, -1), stop),
        )

    # --- control's messages ------------------------------------------------------------------------------------------
    @contextmanager
    def _paused(self) -> Iterator[None]:
        lib.tr_pause(self._at)
        try:
            yield
        finally:
            lib.tr_resume(self._at)

    def apply(self, message: seam.ToWorker, now: float) -> None:
        if isinstance(message, seam.Known):  # thousands of addresses: no packet need wait for that
            self._know(message)
            return
        with self._paused():
            self._obey[type(message)](message, now)

    def _install(self, message: seam.Install, _now: float) -> None:
        lanes = message.lanes[: bounds.MAX_WORKERS]
        keys = ffi.new("tr_lane_keys[]", len(lanes))
        for to, lane in zip(keys, lanes, strict=True):
            to.number = lane.number
            for field in ("seal_key", "seal_salt", "open_key", "open_salt"):
                value = getattr(lane, field)
                ffi.memmove(getattr(to, field), value, len(value))
        install = ffi.new("tr_install_message *")
        install.session, install.remote, install.node = message.session, message.remote, message.node
        install.expires, install.sealed, install.lanes = message.expires, message.sealed, len(lanes)
        _put_endpoint(ffi.addressof(install, "endpoint"), message.endpoint)
        lib.tr_install(self._at, install, keys)

    def _deliver(self, message: seam.Deliver, _now: float) -> None:
        if lib.tr_deliver(self._at, message.session) == 0:
            for datagram in self._drop_held(message.session):
                lib.tr_held(self._at, message.session, datagram, len(datagram))

    def _use(self, message: seam.Use, now: float) -> None:
        if lib.tr_use(self._at, message.node, message.session) == 0:
            for frame in self._waiting.take(message.node):
                lib.tr_waited(self._at, frame, len(frame), now)
            lib.tr_flush(self._at)

    def _retire(self, message: seam.Retire, _now: float) -> None:
        last = ffi.new("tr_used *")
        if lib.tr_retire(self._at, message.session, last) == 0:
            self._drop_held(message.session)
            self._emit(seam.Retired(*_totals(last)))
        else:
            self._emit(seam.Retired(message.session, 0, 0, 0, 0))

    def _drop_held(self, session: int) -> list[bytes]:
        held = self._held.pop(session, [])
        self._held_count -= len(held)
        return held

    def _move(self, message: seam.Move, _now: float) -> None:
        endpoint = ffi.new("tr_endpoint *")
        _put_endpoint(endpoint, message.endpoint)
        lib.tr_move(self._at, message.session, endpoint)

    def _route(self, message: seam.Route, _now: float) -> None:
        lib.tr_route(self._at, message.prefix, len(message.prefix), message.length, message.node)

    def _unroute(self, message: seam.Unroute, _now: float) -> None:
        lib.tr_unroute(self._at, message.prefix, len(message.prefix), message.length)
        self._unrouted = True

    def _path_mtu(self, message: seam.PathMtu, _now: float) -> None:
        lib.tr_path_mtu(self._at, message.node, message.mtu)

    def _send_control(self, message: seam.SendControl, now: float) -> None:
        lib.tr_send_control(self._at, message.session, message.body, len(message.body), message.size, now)

    def _send_raw(self, message: seam.SendRaw, now: float) -> None:
        endpoint = ffi.new("tr_endpoint *")
        _put_endpoint(endpoint, message.endpoint)
        lib.tr_send_raw(self._at, message.datagram, len(message.datagram), endpoint, now)

    def _know(self, message: seam.Known) -> None:
        self._strangers.know(message.addresses)
        addresses = ffi.new("tr_endpoint[]", len(message.addresses))
        count = 0
        for address in message.addresses:
            with suppress(OSError):  # from what is no address nothing comes
                _put_endpoint(addresses[count], (address, 0))
                count += 1
        lib.tr_know(self._at, addresses, count)

    def _hop(self, message: seam.Hop, _now: float) -> None:
        lib.tr_hop(self._at, message.target, message.via)

    def _backup(self, message: seam.Backup, _now: float) -> None:
        lib.tr_backup(self._at, message.session, message.on)

    def _relayed(self, message: seam.Relayed, now: float) -> None:
        lib.tr_relayed(self._at, message.origin, message.datagram, len(message.datagram), now)

    # --- reports -----------------------------------------------------------------------------------------------------
    @property
    def counters(self) -> dict[str, int]:
        """All counters now; what others put into it stays."""
        lib.tr_counters(self._at, self._values)
        for name, value in zip(NAMES, self._values, strict=True):
            self._counters[name] = value + self._own[name]
        return self._counters

    def report(self, now: float) -> bool:
        """Emits what was used and counted since the last report; false if nothing was."""
        with self._paused():
            changed = self._report_sessions(now)
            counters = dict(self.counters)
            if self._unrouted:
                self._unrouted = False
                lib.tr_forget_unrouted(self._at)
        if counters != self._reported:
            if self._emit(seam.Counters(counters)) is not False:
                self._reported = counters
            changed = True
        return changed

    def _report_sessions(self, now: float) -> bool:
        """Where sessions moved and what was used of them; who finds no room now is first in the next report."""
        room = lib.tr_session_count(self._at)
        due, moves = ffi.new("tr_used[]", room), ffi.new("uint32_t *")
        count = lib.tr_used_since(self._at, due, room, now, moves)
        for used in sorted((due[i] for i in range(count)), key=lambda used: float(used.reported_at)):
            if self._emit(_used(used)) is False:
                break
            lib.tr_reported(self._at, ffi.addressof(used), now)
        return bool(count or moves[0])

    # --- what the kernel tells ---------------------------------------------------------------------------------------
    def on_stranger(
        self, datagram: Pointer, size: int, sender: Pointer, now: float, wakeup: int, alone: Pointer
    ) -> float:
        shut = self._strangers.on_datagram(_bytes(datagram, size), _endpoint(sender), now, wakeup)
        alone[0] = shut.alone
        return shut.until

    def on_control(self, session: int, sender: Pointer, body: Pointer, body_size: int, size: int) -> None:
        self._emit(seam.Control(session, _endpoint(sender), _bytes(body, body_size), size))

    def on_hold(self, session: int, datagram: Pointer, size: int) -> None:
        if self._held_count >= bounds.MAX_HELD:
            self._own["drop_held_full"] += 1
            return
        self._held_count += 1
        self._held.setdefault(session, []).append(_bytes(datagram, size))

    def on_wait(self, node: int, frame: Pointer, size: int, now: float) -> None:
        self._waiting.keep(node, _bytes(frame, size), now)

    def on_explain(self, refused: Pointer, size: int, mtu: int, to: Pointer) -> int:
        message = packet.too_big(memoryview(ffi.buffer(refused, size)), mtu)
        if message is None:
            return 0
        ffi.memmove(to, message, len(message))
        return len(message)

    def on_refused(self, session: int, size: int) -> None:
        self._emit(seam.TooBig(session, size))

    def on_moved(self, session: int, endpoint: Pointer) -> None:
        self._emit(seam.Moved(session, _endpoint(endpoint)))

    def on_unrouted(self, node: int) -> None:
        self._waiting.forget(node)

    def on_hop_wanted(self, target: int) -> None:
        self._emit(seam.HopWanted(target))

    def on_astray(self, origin: int, datagram: Pointer, size: int) -> None:
        self._emit(seam.Astray(origin, _bytes(datagram, size)))

    def on_error(self, error: BaseException) -> None:
        """One of the functions above failed: its packet is lost, the loop goes on."""
        self._counters["worker_errors"] = self._counters.get("worker_errors", 0) + 1
        if self._counters["worker_errors"] == 1:
            log.error("a packet was given up (said once): %s: %s", type(error).__name__, error)


NAMES: Final = tuple(ffi.string(lib.tr_counter_name(i)).decode() for i in range(lib.tr_counter_count()))


def open_nacl(wide: int | None = None) -> Pointer:
    """libsodium's functions, from the library that PyNaCl brings; beside them those of our own that this processor can
    run, or of these the ones that `wide` names (c/api.h)."""
    names = dict(_BOX)
    if all(hasattr(library, name) for name in _NACL.values()):
        names |= _NACL
    table = ffi.new("tr_nacl *")
    types = dict(ffi.typeof("tr_nacl").fields)
    for field, name in names.items():
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        setattr(table, field, ffi.cast(types[field].type, address))
    widen(table, lib.tr_wide() if wide is None else wide)
    return table


def widen(table: Pointer, wide: int) -> None:
    """Gives the table our own functions that agree with its libsodium."""
    wrong = lib.tr_widen(table, wide)
    if wrong:
        log.error(
            "SLOW: libsodium does the work of our own %s, which made something else on this processor; "
            "please report the processor and the compiler",
            " and ".join(name for name, bit in _WIDE.items() if wrong & bit),
        )


def _bytes(at: Pointer, size: int) -> bytes:
    return bytes(ffi.buffer(at, size))


def _endpoint(at: Pointer) -> seam.Endpoint:
    return sockaddr.unpack(_bytes(at.name, at.size))


def _put_endpoint(to: Pointer, endpoint: seam.Endpoint) -> None:
    name = sockaddr.pack(endpoint)
    ffi.memmove(to.name, name, len(name))
    to.size = len(name)


def _used(at: Pointer) -> seam.Used:
    return seam.Used(*_totals(at), at.last_sent, at.last_received)


def _totals(at: Pointer) -> tuple[int, int, int, int, int]:
    return at.session, at.sent_packets, at.sent_bytes, at.received_packets, at.received_bytes


def _declare(name: str) -> None:
    """Makes C's `on_NAME(handle, ...)` a call of the kernel's method of that name."""

    def call(handle: Pointer, *arguments: Any) -> Any:
        kernel = ffi.from_handle(handle)
        try:
            return getattr(kernel, f"on_{name}")(*arguments)
        except Exception as error:  # C cannot be unwound
            kernel.on_error(error)
            return 0 if name in {"explain", "stranger"} else None

    ffi.def_extern(name=f"on_{name}")(call)


for _name in _EVENTS:
    _declare(_name)
