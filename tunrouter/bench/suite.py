"""`tunrouter bench` from its options to its report: labs, the tunnels in them, who takes part in what, the rounds.

    lab, the chosen MTU     hosts 1 2: tunrouter        hosts 3 4: no-encryption
    lab, MTU 9000           hosts 1 2: mtu-9000

Law: only what the chosen scenarios need is set up, all of it before the first round, so that variants run in turns.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tunrouter.bench import instruments, rounds
from tunrouter.bench.agent import PACKAGE
from tunrouter.bench.capture import Capture
from tunrouter.bench.contenders.ours import Tunrouter
from tunrouter.bench.fabric import Offloads
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.machine import Machine, revision
from tunrouter.bench.progress import Progress
from tunrouter.bench.report import (
    SCHEMA,
    TUNROUTER,
    Product,
    Report,
    Settings,
    Variant,
    failures,
    rows,
)
from tunrouter.bench.rounds import Match
from tunrouter.bench.scenarios import LARGE, chosen, fitting_payload, standard
from tunrouter.bench.traffic import Stream
from tunrouter.errors import ConfigError, HostError

PLAIN: Final = "no-encryption"
JUMBO: Final = "mtu-9000"
JUMBO_MTU: Final = 9000
VARIANTS: Final = (PLAIN, JUMBO)
SHARED: Final = "tcp-1"
"""The scenario in which variants take turns with the tunnel itself."""
NAMES: Final = (*(scenario.name for scenario in standard(LARGE)), *VARIANTS)
TOOLS: Final = {
    "ip": "iproute2",
    "nft": "nftables",
    "ethtool": "ethtool",
    "tcpdump": "tcpdump",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
}
PROBE_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class Options:
    scenarios: tuple[str, ...] = ()
    """All, if none is named."""
    rounds: int = 5
    seconds: int = 3
    quick: bool = False
    """Searches stop at a coarser resolution."""
    mtu: int = 1500
    offloads: Offloads = "off"
    workers: int = 0
    """0: the agent's own default."""
    encryption: bool = True

    def variants(self) -> tuple[str, ...]:
        """Those to set up beside the tunnel itself."""
        pointless = {PLAIN: not self.encryption, JUMBO: self.mtu == JUMBO_MTU}
        for name in VARIANTS:
            if name in self.scenarios and pointless[name]:
                raise ConfigError(f"all of this run is {name}", f"leave out --scenario {name}")
        return tuple(name for name in VARIANTS if not pointless[name] and name in (self.scenarios or VARIANTS))

    def check(self) -> None:
        """Everything that can be said before anything is set up."""
        for name in self.scenarios:
            if name not in NAMES:
                raise ConfigError(f"scenario {name!r} is not known", f"choose from {', '.join(NAMES)}")
        self.variants()
        if os.geteuid():
            raise HostError("bench needs root for its network namespaces", "run as root: sudo tunrouter bench")
        for tool, package in TOOLS.items():
            if not shutil.which(tool):
                raise HostError(f"bench needs {tool}, which is not installed", f"apt-get install {package}")


class Suite:
    """A context that holds the labs and tunnels of one run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.tunnels: dict[str, Tunrouter] = {}
        self._labs: list[Lab] = []
        self._stack = ExitStack()

    def __enter__(self) -> Suite:
        try:
            self._open()
        except BaseException as error:
            # With the error, so that the labs keep their logs.
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]  # what a context gets

    def _open(self) -> None:
        variants = self.options.variants()
        lab = self._lab(hosts=4 if PLAIN in variants else 2, mtu=self.options.mtu)
        self._tunnel(TUNROUTER, lab, lab.hosts[:2], encrypted=self.options.encryption)
        if PLAIN in variants:
            self._tunnel(PLAIN, lab, lab.hosts[2:], encrypted=False)
        if JUMBO in variants:
            jumbo = self._lab(hosts=2, mtu=JUMBO_MTU)
            self._tunnel(JUMBO, jumbo, jumbo.hosts, encrypted=self.options.encryption)

    def _lab(self, *, hosts: int, mtu: int) -> Lab:
        lab = self._stack.enter_context(Lab(hosts=hosts, mtu=mtu, offloads=self.options.offloads))
        self._labs.append(lab)
        return lab

    def logs(self) -> list[Path]:
        """The agents'; after the context there are some only if an error has ended it."""
        return [log for lab in self._labs for log in lab.logs()]

    def _tunnel(self, name: str, lab: Lab, hosts: Sequence[Host], *, encrypted: bool) -> None:
        one, two = hosts
        arguments = ("--workers", str(self.options.workers)) if self.options.workers else ()
        tunnel = Tunrouter(lab, (one, two), name=name, encrypted=encrypted, arguments=arguments)
        self.tunnels[name] = self._stack.enter_context(tunnel)

    def matches(self, payload: int) -> list[Match]:
        """Who takes part in what."""
        variants = self.options.variants()
        names = {SHARED if name in VARIANTS else name for name in self.options.scenarios}
        base = self.tunnels[TUNROUTER]
        beside = tuple(self.tunnels[name] for name in variants)
        return [
            Match(scenario, (base, *beside) if scenario.name == SHARED else (base,))
            for scenario in chosen(standard(payload, quick=self.options.quick), sorted(names))
        ]

    def describe(self) -> list[Variant]:
        """Each tunnel, with what its underlay carries; HostError if that is not what the offloads promise."""
        return [describe(tunnel, self.options.offloads) for tunnel in self.tunnels.values()]


def describe(tunnel: Tunrouter, offloads: Offloads) -> Variant:
    mtu = tunnel.lab.fabric.mtu
    largest = largest_frame(tunnel)
    if offloads != "on" and largest > mtu:
        raise HostError(f"a frame of {largest} bytes crossed the underlay, whose MTU is {mtu}: nothing is measured so")
    pod_mtu = instruments.mtu(tunnel.ends[0])
    return Variant(tunnel.name, tunnel.version, tunnel.encrypted, mtu, pod_mtu, offloads, largest)


def largest_frame(tunnel: Tunrouter) -> int:
    """Of what the first host puts on the wire while a pod of it sends a TCP stream."""
    host = tunnel.hosts[0]
    sender, receiver = tunnel.ends
    with Capture(tunnel.lab.fabric.namespace, host.agent.directory / "wire", interface=host.name) as capture:
        with Stream(sender.namespace, receiver.namespace, receiver.address, PROBE_BYTES) as stream:
            stream.finish()
        capture.wait_for_payload(PROBE_BYTES, f"src host {host.address}")
        return capture.largest()


def run(options: Options, progress: Progress) -> Report:
    """The whole run; raises what ends it, and keeps what merely fails in the report."""
    options.check()
    suite = Suite(options)
    try:
        return _measured(suite, progress)
    except Exception:
        for log in suite.logs():
            progress.say(f"log: {log}")
        raise


def _measured(suite: Suite, progress: Progress) -> Report:
    options = suite.options
    started, clock = datetime.now(UTC), time.monotonic()
    progress.say("setting up")
    with suite:
        variants = suite.describe()
        payload = fitting_payload([suite.tunnels[TUNROUTER]])
        matches = suite.matches(payload)
        with progress.over(rounds.turns(matches, options.rounds), options.seconds):
            samples = rounds.run(matches, options.rounds, options.seconds, progress.done, begin=progress.begin)
        product = describe_product(suite.tunnels[TUNROUTER], options)
    return Report(
        kind="tunrouter bench",
        schema=SCHEMA,
        started=started.isoformat(timespec="seconds"),
        elapsed=round(time.monotonic() - clock, 1),
        tunrouter=product,
        machine=Machine.here(),
        settings=Settings(options.rounds, options.seconds, options.mtu, options.offloads, options.encryption, payload),
        variants=variants,
        figures=rows(matches, samples),
        failures=failures(samples),
    )


def describe_product(tunnel: Tunrouter, options: Options) -> Product:
    snapshot = tunnel.hosts[0].agent.snapshot()
    offloads = snapshot.host.tun_offloads
    return Product(snapshot.version, revision(PACKAGE), snapshot.kernel, offloads, options.workers)
