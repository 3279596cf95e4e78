"""What the tests ask of any container runtime, and the network configuration that each of them is given.

    a runtime on a lab's host ──(CNI)──> tunrouter-cni ──> the host's agent
                              ──(CNI)──> portmap, for the ports of the host

Law: a runtime is met as its users meet it: it finds our plugin by the configuration alone. Leaving a runtime removes
its pods in the runtime's own way, and its cell removes what that left.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from tests.runtimes import image, leftovers
from tests.runtimes.cell import Cell, program
from tests.runtimes.leftovers import NETWORK
from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import run
from tunrouter.edge import runtimes

PLUGIN: Final = runtimes.source()
DEBIANS: Final = Path("/usr/lib/cni")
CNI_VERSION: Final = "1.0.0"
"""The latest of Debian's portmap."""
SERVED: Final = 80
"""The port of every server in a pod."""
ANSWER_SECONDS: Final = 5


class Pod:
    """Something that a runtime runs, with an address of the network."""

    def __init__(self, runtime: Runtime, identity: str) -> None:
        self.runtime = runtime
        self.identity = identity
        self.address = runtime.address(identity)

    def __repr__(self) -> str:
        return f"{self.runtime.host}/{self.identity[:12]}"

    def run(self, *argv: str) -> str:
        """What a command in it prints, its errors too."""
        return self.runtime.execute(self.identity, *argv)

    def ping(self, address: str) -> bool:
        return "1 packets received" in self.run("ping", "-n", "-c", "1", "-W", str(ANSWER_SECONDS), address)

    def fetch(self, address: str, port: int = SERVED) -> str:
        """What a server there says."""
        return self.run("nc", "-w", str(ANSWER_SECONDS), address, str(port)).strip()

    def remove(self) -> None:
        self.runtime.remove(self.identity)


class Runtime(ABC):
    """A context manager: one host's own instance, its files below the lab's directory."""

    name: str

    def __init__(self, host: Host) -> None:
        self.host = host
        self.directory = host.lab.directory / host.name / self.name
        self.cell = Cell(host, self.directory)
        self.image = self.directory / "image.tar"

    def __enter__(self) -> Self:
        leftovers.sweep()
        with_our_plugin(self.host, self.directory)
        image.write(self.image)
        self.cell.__enter__()
        try:
            self.start()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._clear()

    def _clear(self) -> None:
        """What is kept of a lab that failed is no more than logs."""
        self.cell.__exit__()
        leftovers.clear(self.host)
        shutil.rmtree(self.directory / "root", ignore_errors=True)
        self.image.unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What the runtime's own programs are run with."""
        return dict(os.environ)

    def serve(self, word: str, *, host_port: int = 0) -> Pod:
        """A pod that says `word` to whoever connects, also on a port of its host."""
        ports = {host_port: SERVED} if host_port else {}
        return self.launch("nc", "-ll", "-p", str(SERVED), "-e", "echo", word, ports=ports)

    @abstractmethod
    def start(self) -> None:
        """Returns when pods can be run."""

    def stop(self) -> None:
        """Not after a start that failed: then there are no pods."""
        self.remove_all()

    @abstractmethod
    def launch(self, *command: str, ports: Mapping[int, int] = {}) -> Pod:
        """A pod; `ports` maps those of the host to its own."""

    @abstractmethod
    def execute(self, identity: str, *argv: str) -> str:
        """What a command in a pod prints."""

    @abstractmethod
    def address(self, identity: str) -> str:
        """A pod's, as the runtime tells it."""

    @abstractmethod
    def remove(self, identity: str) -> None:
        """Ends a pod, whatever it does."""

    @abstractmethod
    def remove_all(self) -> None: ...


Pair = tuple[Runtime, Runtime]


def with_our_plugin(host: Host, directory: Path) -> None:
    """Makes `cni`, with the network's configuration, and `plugins`, with the programs that it names."""
    plugins, networks = directory / "plugins", directory / "cni"
    for made in (plugins, networks):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    for found in (PLUGIN, *(Path(program(str(DEBIANS / name))) for name in ("loopback", "portmap"))):
        (plugins / found.name).symlink_to(found)
    agent = host.agent.directory
    ours = {
        "type": PLUGIN.name,
        "socket": str(agent / "run" / "tunrouter.sock"),
        "notes": str(agent / "state" / "cni"),
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    configuration = {"cniVersion": CNI_VERSION, "name": NETWORK, "plugins": [ours, ports]}
    (networks / "10-tunrouter.conflist").write_text(json.dumps(configuration, indent=2))


# --- a host itself, beside its pods ----------------------------------------------------------------------------------
def fetch(host: Host, address: str, port: int = SERVED) -> str:
    """What a server says to the host."""
    command = (program("busybox"), "nc", "-w", str(ANSWER_SECONDS), address, str(port))
    return run(host.namespace.enter(command), stdin="", check=False).stdout.strip()
