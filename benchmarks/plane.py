"""One worker of the data plane without control: `python -m benchmarks.plane NUMBER PEER COUNT`, in a host's namespace.

    10.32.NUMBER.1 on the TUN ── worker ── UDP ── 10.32.PEER.1, and COUNT - 1 sessions of nodes that never speak

Law: the worker is the product's own, process and all, and is told over the seam what control would tell it; keys and
indices are made up alike on both sides. The session that carries traffic is installed in the middle of the others.
"""

from __future__ import annotations

import hashlib
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

from tunrouter.agent.child import Child, Order
from tunrouter.agent.descriptors import bind_groups
from tunrouter.agent.process import die_with_parent
from tunrouter.core import seam
from tunrouter.core.indices import SLOT, SLOTS
from tunrouter.dataplane.tun import prepare_tun
from tunrouter.errors import TunrouterError

TUN: Final = "bench0"
MTU: Final = 1376
RANGE: Final = "10.32.0.0/12"
PORT: Final = 6783
LIFETIME: Final = 24 * 3600.0
FIRST_NODE: Final = 1 << 32
"""Ids of the nodes that never speak; the two that do have their numbers as ids."""


def address(number: int) -> str:
    """Of the node's end of its TUN."""
    return f"10.32.{number}.1"


def prefix(node: int) -> bytes:
    """A /24: that of a speaking node by its number, the others' behind 10.33.0.0."""
    if node < FIRST_NODE:
        return bytes((10, 32, node, 0))
    return (IPv4Address("10.33.0.0") + (node - FIRST_NODE) * 256).packed


def secret(label: str, size: int) -> bytes:
    return hashlib.blake2b(label.encode(), digest_size=size).digest()


def lane(me: int, peer: int) -> seam.Lane:
    """The keys between two nodes, as `me` has them."""
    there, back = f"{me}>{peer}", f"{peer}>{me}"
    return seam.Lane(0, secret(there, 32), secret(f"{there} salt", 8), secret(back, 32), secret(f"{back} salt", 8))


def indices(number: int, count: int) -> list[int]:
    """Receiver index bases as random as real ones, the same for whoever asks."""
    slots = random.Random(number).sample(range(1, SLOTS), count)  # noqa: S311  (nobody guards anything with them)
    return [slot * SLOT for slot in slots]


def session(me: int, peer: int, local: int, remote: int, endpoint: str, expires: float) -> Iterator[seam.ToWorker]:
    """All that control says of one session."""
    yield seam.Route(prefix(peer), 24, peer)
    yield seam.PathMtu(peer, MTU)
    yield seam.Install(local, peer, remote, (lane(me, peer),), (endpoint, PORT), expires, True)
    yield seam.Deliver(local)
    yield seam.Use(peer, local)


def script(me: int, peer: int, endpoint: str, count: int, now: float) -> Iterator[seam.ToWorker]:
    """Everything a worker of `me` is told."""
    yield seam.Route(prefix(me), 24, seam.SELF)
    middle = count // 2
    ours, theirs = indices(me, count), indices(peer, count)
    for at in range(count):
        node = peer if at == middle else FIRST_NODE + at
        yield from session(me, node, ours[at], theirs[at], endpoint, now + LIFETIME)


def configure(number: int) -> None:
    prepare_tun(TUN)
    for line in (f"link set {TUN} mtu {MTU} up", f"address add {address(number)}/32 dev {TUN}",
                 f"route add {RANGE} dev {TUN} src {address(number)}"):  # fmt: skip
        subprocess.run(["ip", *line.split()], check=True)


def run(number: int, peer: int, endpoint: str, count: int) -> None:
    """Until the worker dies or this process is killed."""
    configure(number)
    groups = bind_groups("", PORT, 1)
    worker = Child(0, Order(TUN, "warning", "text"), [group[0].fileno() for group in groups], time.monotonic())
    worker.pipe.tell(list(script(number, peer, endpoint, count, time.monotonic())))
    while not worker.pipe.closed:
        writing = [worker.pipe] if worker.pipe.wants_write else []
        select.select([worker.pipe], writing, [])
        worker.pipe.flush()
        worker.pipe.receive()


def main(argv: list[str]) -> int:
    number, peer, endpoint, count = argv
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        run(int(number), int(peer), endpoint, int(count))
    except TunrouterError as error:
        sys.stderr.write(f"plane: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
