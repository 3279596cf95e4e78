"""How long the compiled kernel's loop looks again before it sleeps: only when its pauses are short."""

from __future__ import annotations

import socket
import threading
import time

from tunrouter.bench.namespaces import wait_until
from tunrouter.core import bounds, seam
from tunrouter.dataplane.compiled import CompiledKernel
from tunrouter.dataplane.threads import Threads


class SocketTun:
    """Frames are datagrams of a local socket; whatever is written is lost."""

    features = ()

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.setblocking(False)

    def fileno(self) -> int:
        return self.ours.fileno()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def spent(pause: float, count: int) -> float:
    """The part of a processor that the loop takes when a frame comes every `pause` seconds."""
    tun = SocketTun()

    def emit(_message: seam.ToControl) -> None:
        pass

    kernel = CompiledKernel(tun, [], emit)  # type: ignore[arg-type]  # the loop in C wants a descriptor only
    took: list[float] = []

    def loop(stop: int) -> None:
        start = time.thread_time()
        kernel.loops(tun, [])[0](stop)  # type: ignore[arg-type]
        took.append(time.thread_time() - start)

    ended = threading.Event()
    threads = Threads([loop], ended.set)
    threads.start()
    start = time.monotonic()
    for i in range(count):
        tun.theirs.send(b"x")
        # The frames' own rhythm, not a wait for something.
        time.sleep(max(0.0, start + (i + 1) * pause - time.monotonic()))
    seconds = time.monotonic() - start
    wait_until("all frames are read", lambda: kernel.counters["drop_malformed"] == count, 5)
    threads.stop()
    tun.close()
    return took[0] / seconds


def test_rare_packets_do_not_keep_a_loop_awake() -> None:
    pause = 4 * bounds.SHORT_PAUSE_SECONDS
    assert spent(pause, 1000) < 0.8 * bounds.LINGER_SECONDS / pause


def test_frequent_ones_do() -> None:
    pause = bounds.SHORT_PAUSE_SECONDS / 2
    assert spent(pause, 4000) > 0.8 * bounds.LINGER_SECONDS / bounds.SHORT_PAUSE_SECONDS
