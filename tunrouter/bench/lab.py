"""A lab: hosts and pods as network namespaces on one machine, joined by an underlay that can be made to fail.

    host1 192.0.2.1 ── underlay ── host2 192.0.2.2      each host: an agent, a block 10.32.N.0/24, pods
      2001:db8::1                    2001:db8::2        Lab(underlay=6): without the IPv4 addresses
      └ pod a 10.32.1.x               └ pod a 10.32.2.x

    with Lab(hosts=3) as lab:
        lab.start_agents(password="correct horse battery staple")
        a, b = lab.hosts[0].add_pod("a"), lab.hosts[1].add_pod("b")
        a.ping(b.address)

Law: nothing outlives the lab: leaving it by its end, an exception, Ctrl-C, SIGTERM or SIGHUP removes every process,
namespace and file it made, and the next lab removes what a killed one left. Only after a failure the logs are kept.
"""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Literal

from tunrouter.bench.agent import PORT, Agent
from tunrouter.bench.fabric import Fabric, Offloads, default_route
from tunrouter.bench.namespaces import PREFIX, Namespace, lines_until, owner, owner_lives, run, stop, sweep
from tunrouter.bench.nat import Nat
from tunrouter.errors import HostError

ROOT: Final = Path(tempfile.gettempdir())
KEPT: Final = "kept"
"""Marks a directory whose logs a user was pointed to."""
_numbers = itertools.count(1)


class Pod:
    """A namespace attached to its host's bridge by `tunrouter attach`."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.namespace = Namespace(f"{host.namespace.name}-{name}")
        self.address = ""

    def __repr__(self) -> str:
        return f"{self.host.name}/{self.name}"

    def ping(self, address: str, *, count: int = 1, size: int = 56, seconds: float = 5.0) -> list[float]:
        """Round trips in ms of the first `count` echo requests that were answered in time; fragments are forbidden."""
        # With -c, ping would give the last one only two of its round trips to come: too little on a busy machine.
        process = self.namespace.spawn(*f"ping -n -M do -i 0.01 -s {size} {address}".split())
        trips: dict[int, float] = {}
        try:
            for line in lines_until(process, time.monotonic() + seconds):
                answer = re.search(r"icmp_seq=(\d+) .*time=([\d.]+)", line)
                if answer is not None and int(answer[1]) <= count:
                    trips.setdefault(int(answer[1]), float(answer[2]))
                if len(trips) == count:
                    break
        finally:
            stop(process)
        return [trips[number] for number in sorted(trips)]


class Host:
    """A namespace with an underlay address, an agent and pods."""

    def __init__(self, lab: Lab, number: int) -> None:
        self.lab = lab
        self.number = number
        self.name = f"host{number}"
        self.address6 = f"2001:db8::{number:x}"
        self.address = self.address6 if lab.underlay == 6 else f"192.0.2.{number}"
        """Where the others look for it."""
        self.namespace = Namespace(f"{lab.name}-{self.name}")
        self.agent = Agent(self.namespace, lab.directory / self.name, name=self.name, block=f"10.32.{number}.0/24")
        self.pods: list[Pod] = []
        self.nat = Nat(Namespace(f"{lab.name}-nat{number}"), number) if number in lab.hidden else None
        """What it hides behind."""

    def __repr__(self) -> str:
        return self.name

    def create(self) -> None:
        self.namespace.create()
        if self.nat is None:
            both = () if self.lab.underlay == 6 else (f"{self.address}/24",)
            self.lab.fabric.plug(self.namespace, self.name, *both, f"{self.address6}/64", f"fe80::{self.number:x}/64")
        else:
            self.address = self.nat.hidden
            self.nat.create(self.lab.fabric, self.namespace, self.name)

    @property
    def endpoint(self) -> str:
        """As people write a peer, and as status shows it."""
        return f"[{self.address}]:{PORT}" if ":" in self.address else f"{self.address}:{PORT}"

    def readdress(self, address: str) -> None:
        """Moves the host to another address of the underlay, as a DHCP lease or a laptop does."""
        length, nodad = (64, "nodad") if ":" in address else (24, "")
        self.namespace.ip(
            f"address del {self.address}/{length} dev eth0",
            f"address add {address}/{length} dev eth0 {nodad}",
            default_route(address),
        )
        self.address = address

    def drop_forwarded(self) -> None:
        """What Docker does: the iptables FORWARD policy becomes DROP."""
        self.namespace.run("iptables", "-P", "FORWARD", "DROP")

    def filter_bridged(self, on: bool) -> None:
        """`bridge-nf-call-iptables`, which is off where br_netfilter is not loaded."""
        if on and not Path("/proc/sys/net/bridge").exists():
            run(["modprobe", "br_netfilter"])
        options = ("-qw",) if on else ("-qw", "-e")
        self.namespace.run("sysctl", *options, f"net.bridge.bridge-nf-call-iptables={int(on)}", check=on)

    def make_namespace(self, name: str) -> Pod:
        """A pod-to-be: its namespace alone, attached to nothing."""
        pod = Pod(self, name)
        self.pods.append(pod)
        pod.namespace.create()
        return pod

    def add_pod(self, name: str, *, address: str | None = None) -> Pod:
        pod = self.make_namespace(name)
        self.attach(pod, address=address)
        return pod

    def attach(self, pod: Pod, *, address: str | None = None) -> None:
        arguments = ("--ip", address) if address else ()
        said = self.agent.command("attach", str(pod.namespace.path), *arguments).stdout
        found = re.search(r"\d+\.\d+\.\d+\.\d+", said)
        if not found:
            raise HostError(f"`tunrouter attach` on {self.name} printed no address: {said.strip()!r}")
        pod.address = found.group()


class Lab:
    """A context manager; see the module's text."""

    def __init__(
        self,
        hosts: int = 2,
        *,
        mtu: int = 1500,
        offloads: Offloads = "on",
        keep: bool = False,
        hidden: Collection[int] = (),
        underlay: Literal[4, 6] = 4,
    ) -> None:
        """The hosts of the numbers in `hidden` are behind a NAT each.

        Hosts have both families, and speak to each other by IPv4; with `underlay=6` they have no IPv4 there.
        """
        self.name = f"{PREFIX}-{owner()}-{next(_numbers)}"
        self.directory = ROOT / self.name
        self.keep = keep
        self.hidden = hidden
        self.underlay = underlay
        self.fabric = Fabric(Namespace(f"{self.name}-fabric"), mtu=mtu, offloads=offloads)
        self.hosts: tuple[Host, ...] = ()
        self._host_count = hosts
        self._signals: dict[int, object] = {}

    def __enter__(self) -> Lab:
        sweep()
        sweep_directories()
        self._catch_signals()
        try:
            self.directory.mkdir(mode=0o700)
            self.hosts = tuple(Host(self, number + 1) for number in range(self._host_count))
            self.fabric.create()
            for host in self.hosts:
                host.create()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = kind is not None and not issubclass(kind, KeyboardInterrupt | SystemExit)
        # A second Ctrl-C must not tear the clean-up.
        with signals_ignored():
            if not self.keep:
                self._remove(keep_logs=failed)
        self._release_signals()

    def _remove(self, *, keep_logs: bool) -> None:
        for host in self.hosts:
            host.agent.ask_to_stop()
        for host in self.hosts:
            host.agent.stop()
        for host in self.hosts:
            for namespace in (*(pod.namespace for pod in host.pods), host.namespace):
                namespace.delete()
            if host.nat is not None:
                host.nat.namespace.delete()
        self.fabric.namespace.delete()
        if keep_logs and self.directory.exists():
            (self.directory / KEPT).touch()
        else:
            self.remove_logs()

    def start_agents(self, *arguments: str, password: str | None, hosts: Sequence[Host] | None = None) -> None:
        """An agent on each host, each told of the ones before it; returns when all know each other."""
        chosen = self.hosts if hosts is None else tuple(hosts)
        for at, host in enumerate(chosen):
            peers = (other.endpoint for other in chosen[:at])
            host.agent.start(*arguments, *peers, password=password, wait=False)
        for host in chosen:
            host.agent.wait_ready()
        for host in chosen:
            host.agent.wait_established(len(chosen) - 1)

    def logs(self) -> list[Path]:
        return sorted(self.directory.glob("*/*.log"))

    def remove_logs(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _catch_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._signals[number] = signal.signal(number, _leave)

    def _release_signals(self) -> None:
        for number, handler in self._signals.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself returned
        self._signals.clear()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. Not a plain KeyboardInterrupt: CPython remembers one that passed through `exec` (as in an import of a
    dataclass) even when it is caught, and ends by SIGINT instead of with our exit code."""


def _leave(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        raise Interrupted
    raise SystemExit(128 + number)


@contextmanager
def signals_ignored() -> Iterator[None]:
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in previous:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def sweep_directories() -> None:
    """Removes the files of dead labs, but for logs a user was pointed to."""
    for directory in ROOT.glob(f"{PREFIX}-*"):
        if not owner_lives(directory.name) and not (directory / KEPT).exists():
            shutil.rmtree(directory, ignore_errors=True)
