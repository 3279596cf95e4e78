"""The data plane of a simulated host: several workers with a kernel each, joined and steered as the agent and its
sockets do it, on the virtual clock.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from tests.dataplane.fakes import FakeTun, FakeUdp
from tests.dataplane.kernels import open_kernel
from tunrouter.core import seam
from tunrouter.core.shares import Shares

Arrived = tuple[seam.Endpoint, bytes]


class Worker:
    """One process: its TUN queue, its socket and its kernel."""

    def __init__(self, kernel: str, version: int, emit: Callable[[seam.ToControl], None]) -> None:
        self.tun, self.udp = FakeTun(), FakeUdp()
        self.udp.version = version
        self.kernel = open_kernel(kernel, self.tun, (self.udp,), emit)


class Plane:
    """`heard` collects what control is to hear, `departed` takes what leaves for the underlay."""

    def __init__(self, kernel: str, version: int, workers: int, now: Callable[[], float]) -> None:
        self._kernel = kernel
        self._version = version
        self._now = now
        self.shares = Shares(workers)
        self.heard: list[seam.ToControl] = []
        self.workers: dict[int, Worker] = {}
        self.all: list[Worker] = []
        """The dead, too."""
        self._sockets: list[list[Arrived]] = [[] for _ in range(workers)]
        """What waits for a worker that is being replaced."""
        self._flows = count()
        for number in range(workers):
            self.start(number)

    # --- lives -------------------------------------------------------------------------------------------------------
    def start(self, number: int) -> None:
        worker = Worker(self._kernel, self._version, lambda message: self._hear(number, message))
        self.workers[number] = worker
        self.all.append(worker)
        for message in self.shares.joined(number):
            self._apply(number, message)
        self.shares.ready(number)

    def kill(self, number: int) -> None:
        del self.workers[number]
        self.heard += self.shares.lost(number)

    def read_socket(self, number: int) -> None:
        """A newborn has obeyed what was in its pipe, and looks into its socket."""
        waiting, self._sockets[number] = self._sockets[number], []
        for source, datagram in waiting:
            self.arrive(source, datagram)

    # --- the seam ----------------------------------------------------------------------------------------------------
    def tell(self, message: seam.ToWorker) -> None:
        for number, part in self.shares.split(message):
            self._apply(number, part)

    def _apply(self, number: int, message: seam.ToWorker) -> None:
        # Through the codec, as over the pipe.
        self.workers[number].kernel.apply(seam.decode_to_worker(seam.encode(message)), self._now())

    def _hear(self, number: int, message: seam.ToControl) -> None:
        for other, part in self.shares.follow(number, message):
            self._apply(other, part)
        merged = self.shares.merge(number, message)
        if merged is not None:
            self.heard.append(merged)

    # --- packets -----------------------------------------------------------------------------------------------------
    def send(self, frame: bytes) -> None:
        """Each frame is a flow of its own: the kernel spreads them over the queues that are held."""
        held = sorted(self.workers)
        worker = self.workers[held[next(self._flows) % len(held)]] if held else self.all[-1]
        worker.tun.readable.append(frame)
        if held:
            worker.kernel.drain_tun(self._now())

    def arrive(self, source: seam.Endpoint, datagram: bytes) -> None:
        """As the sockets' program does it; what is too short to have an index is the first's."""
        number = int.from_bytes(datagram[4:8], "big") % self.shares.workers if len(datagram) >= 8 else 0
        worker = self.workers.get(number)
        if worker is None:
            self._sockets[number].append((source, datagram))
            return
        worker.udp.readable.append((datagram, source))
        worker.kernel.drain_udp(worker.udp, self._now())

    def departed(self) -> list[tuple[bytes, seam.Endpoint]]:
        sent = [each for worker in self.all for each in worker.udp.sent]
        for worker in self.all:
            worker.udp.sent.clear()
        return sent

    def report(self) -> None:
        for worker in list(self.workers.values()):
            worker.kernel.report(self._now())

    @property
    def written(self) -> list[bytes]:
        """Frames that reached this host, of each worker in order."""
        return [frame for worker in self.all for frame in worker.tun.written]

    @property
    def counters(self) -> dict[str, int]:
        return {
            name: sum(worker.kernel.counters.get(name, 0) for worker in self.all)
            for worker in self.all
            for name in worker.kernel.counters
        }
