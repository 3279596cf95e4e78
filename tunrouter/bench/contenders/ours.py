"""tunrouter itself in the lab, pod to pod: this checkout's, another revision's, encrypted or not."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from tunrouter.bench.agent import PACKAGE
from tunrouter.bench.contender import End
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until

PASSWORD: Final = "a lab's own passphrase"  # noqa: S105  (nobody else's)
PING_SECONDS: Final = 10.0


class Tunrouter:
    """A context, to be left before its lab. `package` is the checkout to run, `arguments` more of `tunrouter up`'s."""

    def __init__(self, lab: Lab, hosts: tuple[Host, Host], *, name: str = "tunrouter", encrypted: bool = True,
                 package: Path = PACKAGE, arguments: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.name = name
        self.version = ""
        self.lab = lab
        self.hosts = hosts
        self.encrypted = encrypted
        self.arguments = arguments
        for host in hosts:
            host.agent.package = package

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def _open(self) -> None:
        password = PASSWORD if self.encrypted else None
        self.lab.start_agents(*self.arguments, password=password, hosts=self.hosts)
        one, two = (host.add_pod("a") for host in self.hosts)
        wait_until(f"a ping through {self.name}", lambda: one.ping(two.address, seconds=1), PING_SECONDS)
        snapshot = self.hosts[0].agent.snapshot()
        self.version = f"{snapshot.version} (kernel {snapshot.kernel})"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for host in self.hosts:
            host.agent.stop()

    @property
    def ends(self) -> tuple[End, End]:
        one, two = (End(host.pods[0].namespace, host.pods[0].address) for host in self.hosts)
        return one, two

    def lose(self, percent: float) -> None:
        self.lab.fabric.lose(percent)

    def cpu_seconds(self) -> float | None:
        return sum(host.agent.cpu_seconds() for host in self.hosts)

    def resident_mib(self) -> float | None:
        return sum(host.agent.resident_mib() for host in self.hosts)
