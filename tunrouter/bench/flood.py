"""A stranger who floods a UDP port with first handshake messages: `python -m tunrouter.bench.flood`.

    flood ADDRESS PORT RATE SECONDS SOURCE…      prints how many datagrams it sent

Law: the datagrams are well-formed up to the tag, which nobody without the secret can make, and come from all the
sources in turn, so that they pass every cheaper check; the rate is kept by the clock, a hundredth of a second a batch.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final

from tunrouter.core import wire

BATCH_SECONDS: Final = 0.01


def datagram() -> bytes:
    """One first message with a random attempt id and body."""
    attempt = int.from_bytes(os.urandom(8), "big")
    return wire.HEADER.pack(wire.FIRST, wire.SEALED_MODE, 0, 0, attempt) + os.urandom(
        wire.FIRST_BYTES[True] - wire.HEADER_BYTES
    )


def flood(target: tuple[str, int], rate: int, seconds: float, sources: Sequence[str]) -> int:
    sockets = []
    for source in sources:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((source, 0))
        sockets.append(sender)
    prepared = [datagram() for _ in range(1000)]
    started = time.monotonic()
    sent = 0
    while (elapsed := time.monotonic() - started) < seconds:
        due = int(elapsed * rate)
        for number in range(sent, due):
            sockets[number % len(sockets)].sendto(prepared[number % len(prepared)], target)
        sent = due
        time.sleep(BATCH_SECONDS)
    return sent


def main(argv: list[str]) -> int:
    address, port, rate, seconds, *sources = argv
    sys.stdout.write(f"{flood((address, int(port)), int(rate), float(seconds), sources)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
