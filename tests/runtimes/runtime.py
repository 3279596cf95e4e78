"""What the tests ask of any container runtime, and the network configuration that each of them is given.

    a runtime on a lab's host ──(CNI)──> tunrouter-cni ──> the host's agent
                              ──(CNI)──> portmap, for the ports of the host; bandwidth, for limits

Law: a runtime is met as its users meet it: it finds our plugin by the configuration alone. Leaving a runtime removes
its pods in the runtime's own way, and its cell removes what that left.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tests.runtimes import image, leftovers
from tests.runtimes.cell import Cell, program
from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import run

DEBIANS: Final = Path("/usr/lib/cni")
CHAINED: Final = ("loopback", "portmap", "bandwidth")
"""Of Debian's plugins, those that runtimes call beside ours."""
SERVED: Final = 80
"""The port of every server in a pod."""
ANSWER_SECONDS: Final = 5
OVERHEARD: Final = """\
config=$(cat)
printf '%s\\n' "$CNI_COMMAND" "$CNI_NETNS" "$CNI_ARGS" "$config" >> {file}
printf '%s' "$config" | $whole
"""


class Port(NamedTuple):
    """Of the host, and the one of a pod that it leads to."""

    outside: int
    inside: int = SERVED
    protocol: str = "tcp"


class Call(NamedTuple):
    """Of a plugin."""

    namespace: Path
    arguments: str
    """CNI_ARGS."""
    config: dict[str, Any]


class Pod:
    """Something that a runtime runs, with an address of the network."""

    def __init__(self, runtime: Runtime, identity: str) -> None:
        self.runtime = runtime
        self.identity = identity
        self.address = runtime.address(identity)

    def __repr__(self) -> str:
        return f"{self.runtime.host}/{self.identity[:12]}"

    @cached_property
    def namespace(self) -> Path:
        """Of its network."""
        return self.runtime.namespace(self.identity)

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
        ports = (Port(host_port),) if host_port else ()
        return self.launch("nc", "-ll", "-p", str(SERVED), "-e", "echo", word, ports=ports)

    @contextmanager
    def instead(self, plugin: str, script: str) -> Iterator[None]:
        """A plugin of the chain is a shell script, in which `$whole` is the one that it stands for."""
        path, whole = self.directory / "plugins" / plugin, self.directory / f"{plugin}.whole"
        path.rename(whole)
        path.write_text(f"#!/bin/sh\nwhole={whole}\n{script}\n")
        path.chmod(0o755)
        try:
            yield
        finally:
            whole.rename(path)

    @contextmanager
    def overheard(self, plugin: str) -> Iterator[list[Call]]:
        """What a plugin of the chain was asked to add; known at the end of the context."""
        file, calls = self.directory / f"{plugin}.calls", list[Call]()
        with self.instead(plugin, OVERHEARD.format(file=file)):
            yield calls
        lines = file.read_text().splitlines()
        file.unlink()
        for verb, path, arguments, config in zip(*(iter(lines),) * 4, strict=True):
            if verb == "ADD":
                calls.append(Call(Path(path), arguments, json.loads(config)))

    @abstractmethod
    def start(self) -> None:
        """Returns when pods can be run."""

    def stop(self) -> None:
        """Not after a start that failed: then there are no pods."""
        self.remove_all()

    @abstractmethod
    def launch(self, *command: str, ports: Sequence[Port] = ()) -> Pod:
        """A pod; these ports of the host lead to it."""

    @abstractmethod
    def execute(self, identity: str, *argv: str) -> str:
        """What a command in a pod prints."""

    @abstractmethod
    def address(self, identity: str) -> str:
        """A pod's, as the runtime tells it."""

    @abstractmethod
    def namespace(self, identity: str) -> Path:
        """Of a pod's network."""

    @abstractmethod
    def remove(self, identity: str) -> None:
        """Ends a pod, whatever it does."""

    @abstractmethod
    def remove_all(self) -> None: ...


Pair = tuple[Runtime, Runtime]


def with_our_plugin(host: Host, directory: Path) -> None:
    """Makes `plugins` with Debian's, and has the product install itself there and in `cni`."""
    plugins = directory / "plugins"
    plugins.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in CHAINED:
        (plugins / name).symlink_to(program(str(DEBIANS / name)))
    host.agent.command("cni", "install", f"--cni-bin-dir={plugins}", f"--cni-conf-dir={directory / 'cni'}")


# --- a host itself, beside its pods ----------------------------------------------------------------------------------
def fetch(host: Host, address: str, port: int = SERVED) -> str:
    """What a server says to the host."""
    command = (program("busybox"), "nc", "-w", str(ANSWER_SECONDS), address, str(port))
    return run(host.namespace.enter(command), stdin="", check=False).stdout.strip()
