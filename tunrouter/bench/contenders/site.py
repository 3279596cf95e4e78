"""What every rival's host has in common with ours: a bridge, a pod behind it, and routing to the other host's pods.

pod 10.40.N.2 ── veth ── bridge "pods" 10.40.N.1 ── routing ── the rival's device, or none ── eth0 ── underlay
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tunrouter.bench.agent import cpu_seconds, family, resident_kib
from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import stop, wait_until
from tunrouter.errors import HostError

START_SECONDS = 10.0


class Site:
    """One host's side, with the process that carries its traffic if there is one."""

    def __init__(self, host: Host, label: str) -> None:
        self.host = host
        self.namespace = host.namespace
        self.network = f"10.40.{host.number}.0/24"
        self.gateway = f"10.40.{host.number}.1"
        self.directory = host.agent.directory / label
        self.directory.mkdir(mode=0o700)
        self.log = self.directory / f"{label}.log"
        self.pod = host.make_namespace(label)
        self.pod.address = f"10.40.{host.number}.2"
        self.process: subprocess.Popen[bytes] | None = None

    def attach(self, mtu: int) -> None:
        """The bridge and the pod; the host forwards."""
        self.namespace.sysctl("net.ipv4.ip_forward", 1)
        self.namespace.ip(
            "link add pods type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set pods mtu {mtu} addrgenmode none up",
            f"address add {self.gateway}/24 dev pods",
            f"link add pod mtu {mtu} type veth peer name eth0 mtu {mtu} netns {self.pod.namespace.name}",
            "link set pod master pods addrgenmode none up",
        )
        self.pod.namespace.ip(
            f"address add {self.pod.address}/24 dev eth0",
            "link set eth0 addrgenmode none up",
            f"route add default via {self.gateway}",
        )

    def write(self, name: str, text: str) -> Path:
        """A file of the rival's, readable by its owner alone."""
        path = self.directory / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def spawn(self, *argv: str, device: str, environment: dict[str, str]) -> None:
        """Starts the rival's process in the host's namespace; returns when its device is there."""
        with self.log.open("ab") as log:
            process = self.process = self.namespace.spawn(*argv, stdout=log, env=environment)

        def there() -> bool:
            if process.poll() is not None:
                raise HostError(f"{Path(argv[0]).name} ended with {process.returncode}: {self.last_words()}")
            return self.namespace.run("ip", "link", "show", device, check=False).returncode == 0

        wait_until(f"{Path(argv[0]).name} makes its device (log: {self.log})", there, START_SECONDS)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def cpu_seconds(self) -> float | None:
        """None where the kernel does the work."""
        return sum(cpu_seconds(pid) for pid in family(self.process.pid)) if self.process else None

    def resident_mib(self) -> float | None:
        return sum(resident_kib(pid) for pid in family(self.process.pid)) / 1024 if self.process else None

    def stop(self) -> None:
        if self.process:
            stop(self.process)
            self.process = None
