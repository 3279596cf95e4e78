"""What adding a pod costs, beside Go's `bridge` and `host-local`: `python -m benchmarks.pods`.

Law: a time is what a runtime waits for: the plugin started, its answer read. The two take turns, each with a fresh
namespace, and ours is the plugin that `tunrouter cni install` installs. Exit 1: the gate is not met.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from nacl.utils import random

from benchmarks import table
from benchmarks.compare import positive
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.libcni import Plugin, Runtime
from tunrouter.bench.namespaces import Namespace
from tunrouter.bench.rounds import Sample
from tunrouter.bench.statistics import Summary, ratio, summary
from tunrouter.core.keys import generate_secret
from tunrouter.edge import netns
from tunrouter.edge.runtimes import source
from tunrouter.errors import HostError, TunrouterError

OURS, GO = "tunrouter", "bridge + host-local"
BINARIES: Final = Path("/usr/lib/cni")
BOUND: Final = 1.5
"""Times what Go's plugins take to add a pod, at most."""
FIGURES: Final = {"add": "ADD, ms", "delete": "DEL, ms"}


def bridge(directory: Path) -> Plugin:
    """Go's plugin as most tutorials configure it: a bridge with the gateway's address, a default route."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.99.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(directory / "host-local"),
    }
    return {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": addresses}


def run(host: Host, runtimes: dict[str, Runtime], rounds: int) -> list[Sample]:
    """Rounds in which each adds a pod and takes it off again; who begins changes."""
    samples, name = [], f"{host.namespace.name}-pod"
    for number in range(1, rounds + 1):
        if sys.stderr.isatty():
            sys.stderr.write(f"\rround {number} of {rounds}\033[K\r")
        for contender in sorted(runtimes, reverse=bool(number % 2)):
            pod, runtime = Namespace(name), runtimes[contender]
            pod.create()
            try:
                add = timed(partial(runtime.add, f"c{number}", pod))
                delete = timed(partial(runtime.delete, f"c{number}", pod))
            finally:
                pod.delete()
            values = {"add": add, "delete": delete}
            samples.append(Sample(number, "pods", contender, values, seconds=(add + delete) / 1e3))
    return samples


def timed(work: Callable[[], object]) -> float:
    """ms."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def render(samples: Sequence[Sample], gate: Summary | None) -> str:
    cells = [
        (title, *(table.cell(summary(samples, name, figure)) for name in (OURS, GO)))
        for figure, title in FIGURES.items()
    ]
    times = f"{gate.median:.2f}" if gate else "n/a"
    verdict = "pass" if met(gate) else "FAIL"
    return table.markdown(("", OURS, GO), cells) + f"\nADD × {GO}: {times}, gate ≤ {BOUND}: {verdict}\n"


def met(gate: Summary | None) -> bool:
    return gate is not None and gate.median <= BOUND


def measure(rounds: int) -> int:
    if os.geteuid():
        raise HostError("namespaces and TUN devices need root", "sudo make bench-pods")
    if not (BINARIES / "bridge").exists():
        raise HostError(f"there is no {BINARIES}/bridge", "apt-get install containernetworking-plugins")
    with Lab(hosts=1) as lab:
        lab.start_agents(password=generate_secret(random))
        (host,) = lab.hosts
        ours = Runtime(host, path=str(BINARIES))
        theirs = Runtime(host, version="1.0.0", network="bridge", path=str(BINARIES), first=bridge(lab.directory))
        ours.entered = theirs.entered = True
        with netns.Namespace(str(host.namespace.path)) as namespace:
            samples = netns.within(namespace, lambda: run(host, {OURS: ours, GO: theirs}, rounds))
    gate = ratio(samples, OURS, GO, "add")
    sys.stdout.write(f"{source().name}: {kind()}\n\n{render(samples, gate)}")
    return int(not met(gate))


def kind() -> str:
    """What our plugin is: it makes a difference of 15 ms."""
    return "Python" if source().read_bytes()[:2] == b"#!" else "compiled"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.pods", description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=41)
    try:
        return measure(parser.parse_args(argv).rounds)
    except TunrouterError as error:
        sys.stderr.write(f"bench-pods: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
