"""UDP's measuring instruments, each a process in a pod: `python -m tunrouter.bench.datagrams`.

    send ADDRESS PORT SIZE RATE SECONDS    datagrams of SIZE payload bytes, RATE a second; then one JSON line, `Sent`
    count PORT                             counts what arrives until SIGTERM and then silence; one JSON line, `Counted`
    ping ADDRESS PORT SIZE SECONDS         one in flight; one JSON line, `Pinged`
    echo PORT                              sends back what it gets, until SIGTERM

Law: the instrument must cost less than what it measures. So datagrams go and come in batches (`sendmmsg`, `recvmmsg`),
but each enters the pod's interface as a packet of its own, without UDP_SEGMENT; the counter does not wake for every
datagram, it empties its socket once a millisecond. Fragments are forbidden: a datagram too long for the pod's MTU is an
error.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from array import array
from types import FrameType
from typing import Final

import msgspec

BATCH: Final = 64
RECEIVE_BATCH: Final = 256
LONGEST: Final = 9216
BUFFER_BYTES: Final = 32 << 20
TICK_SECONDS: Final = 100e-6
"""Between two batches of the sender that is on time."""
POLL_SECONDS: Final = 1e-3
QUIET_SECONDS: Final = 0.1
"""Silence after which nothing is on its way any more."""
ANSWER_SECONDS: Final = 0.5
WARM_UP: Final = 50
SO_RCVBUFFORCE: Final = 33
SO_MEMINFO: Final = 55
MEMINFO_DROPS: Final = 8
"""Position of `sk_drops` in what SO_MEMINFO returns (linux/sock_diag.h)."""
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DO: Final = 2
PR_SET_TIMERSLACK: Final = 29


class Sent(msgspec.Struct, frozen=True):
    sent: int
    seconds: float


class Counted(msgspec.Struct, frozen=True):
    received: int
    seconds: float
    """From the first batch to the last."""
    overrun: int
    """What this socket itself had no room for: the counter was too slow, whoever carried it."""


class Pinged(msgspec.Struct, frozen=True):
    round_trips: list[int]
    """In nanoseconds."""
    lost: int


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("transferred", ctypes.c_uint))


_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Batch:
    """`count` messages that all read, or overwrite, one buffer: what is inside does not matter."""

    def __init__(self, count: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
        # ctypes keeps nothing alive that is only pointed to.
        self._buffer = buffer
        self._vector = _Iovec(ctypes.addressof(buffer), ctypes.sizeof(buffer))
        self.messages = (_Mmsghdr * count)()
        for message in self.messages:
            message.header.iov, message.header.iovlen = ctypes.pointer(self._vector), 1


def _checked(result: int, *, ignored: tuple[type[OSError], ...] = ()) -> int:
    """What a call of libc returned; its error is raised, an ignored one is 0."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number))
    if isinstance(error, ignored):
        return 0
    raise error


def send(target: tuple[str, int], size: int, rate: float, seconds: float) -> Sent:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(target)
        return send_on(sender, size, rate, seconds)


def send_on(sender: socket.socket, size: int, rate: float, seconds: float) -> Sent:
    """Sends what is due by the clock; a sender that is late does not leave out what it owes, until the time is over."""
    _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    batch = _Batch(BATCH, ctypes.create_string_buffer(os.urandom(size), size))
    sendmmsg, descriptor = _libc.sendmmsg, sender.fileno()
    sent = 0
    started = now = time.perf_counter()
    while (now := time.perf_counter()) - started < seconds:
        due = int((now - started) * rate) - sent
        if due:
            # Refused: nobody listens any more, or the first answer of a closed port; the count will show it.
            sent += _checked(
                sendmmsg(descriptor, batch.messages, min(due, BATCH), 0), ignored=(ConnectionRefusedError,)
            )
        if due <= BATCH:
            time.sleep(TICK_SECONDS)
    return Sent(sent, now - started)


class Tally:
    """Counts what a socket that does not block has received since it was made."""

    def __init__(self, receiver: socket.socket) -> None:
        self._socket = receiver
        self._batch = _Batch(RECEIVE_BATCH, ctypes.create_string_buffer(LONGEST))
        self._dropped = self._drops()
        self.received = 0
        self.first = self.last = 0.0

    def drain(self) -> bool:
        """Takes one batch; False if it was not full, so that nothing is left."""
        taken = _libc.recvmmsg(self._socket.fileno(), self._batch.messages, RECEIVE_BATCH, 0, None)
        got = _checked(taken, ignored=(BlockingIOError, ConnectionRefusedError))
        if got:
            self.last = time.perf_counter()
            self.first = self.first or self.last
            self.received += got
        return got == RECEIVE_BATCH

    @property
    def quiet(self) -> bool:
        """Nothing has arrived for so long that nothing is on its way."""
        return time.perf_counter() - self.last > QUIET_SECONDS

    def result(self) -> Counted:
        return Counted(self.received, self.last - self.first, self._drops() - self._dropped)

    def _drops(self) -> int:
        information = array("I", self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64))
        return information[MEMINFO_DROPS]


class Counter:
    """Ends at the first silence after SIGTERM."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind(("", port))
        self._socket.setblocking(False)
        self._ending = False
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def count(self) -> Counted:
        tally = Tally(self._socket)
        while True:
            if not tally.drain():
                if self._ending and tally.quiet:
                    return tally.result()
                time.sleep(POLL_SECONDS)


def ping(target: tuple[str, int], size: int, seconds: float) -> Pinged:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(target)
        return ping_on(sender, size, seconds)


def ping_on(sender: socket.socket, size: int, seconds: float) -> Pinged:
    """Round trips of a blocking sender with one datagram in flight, each with its number."""
    round_trips = []
    lost = 0
    clock = time.perf_counter_ns
    sender.settimeout(None)
    timeout = int(ANSWER_SECONDS * 1e6)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, array("l", (0, timeout)).tobytes())
    end = clock() + int(seconds * 1e9)
    number = 0
    while clock() < end:
        number += 1
        question = number.to_bytes(size, "big")
        started = clock()
        sender.send(question)
        try:
            while sender.recv(size) != question:
                continue
        except BlockingIOError:
            lost += 1
            continue
        round_trips.append(clock() - started)
    return Pinged(round_trips[WARM_UP:], lost)


def echo(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answerer:
        answerer.bind(("", port))
        while True:
            question, sender = answerer.recvfrom(LONGEST)
            answerer.sendto(question, sender)


def main(argv: list[str]) -> int:
    result: msgspec.Struct
    try:
        match argv:
            case ["send", address, port, size, rate, seconds]:
                result = send((address, int(port)), int(size), float(rate), float(seconds))
            case ["count", port]:
                result = Counter(int(port)).count()
            case ["ping", address, port, size, seconds]:
                result = ping((address, int(port)), int(size), float(seconds))
            case ["echo", port]:
                echo(int(port))
                return 0
            case _:
                sys.stderr.write(f"{__doc__}")
                return 2
    except OSError as error:
        sys.stderr.write(f"{argv[0]} failed: {error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
