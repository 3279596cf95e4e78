"""A container runtime's part of CNI, as libcni plays it: a list of plugins, run one after the other for each verb."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import Namespace
from tunrouter.edge.runtimes import PLUGIN, source

VARIABLES = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")


class PluginError(Exception):
    """What a plugin printed when it failed."""

    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__(str(said))
        self.said = said
        self.code = said["code"]


Plugin = dict[str, Any]
"""Its part of the list: `type`, and its keys."""


class Runtime:
    """On one host; `chain` are the plugins after the first, which is ours unless it is said."""

    def __init__(self, host: Host, *, version: str = "1.1.0", network: str = "pods", path: str = "/usr/lib/cni",
                 first: Plugin | None = None, chain: tuple[Plugin, ...] = ()) -> None:  # fmt: skip
        self.host = host
        self.version = version
        self.network = network
        self.path = path
        self.ours: Plugin = {
            "type": PLUGIN,
            "socket": str(host.agent.directory / "run" / "tunrouter.sock"),
            "notes": str(self.notes),
        }
        self.first = first or self.ours
        self.chain = chain
        self.arguments = "IgnoreUnknown=1"
        """CNI_ARGS."""
        self.entered = False
        """Whoever calls is in the host's namespace already; else each plugin is put there, which takes a while."""

    @property
    def notes(self) -> Path:
        return self.host.agent.directory / "state" / "cni"

    def add(self, container: str, pod: Namespace, interface: str = "eth0", **keys: Any) -> dict[str, Any]:
        """The last plugin's result. Raises PluginError."""
        result: dict[str, Any] | None = None
        for plugin in ({**self.first, **keys}, *self.chain):
            result = self._run("ADD", plugin, container, pod, interface, result)
        assert result is not None
        return result

    def check(self, container: str, pod: Namespace, result: dict[str, Any], interface: str = "eth0") -> None:
        for plugin in (self.first, *self.chain):
            self._run("CHECK", plugin, container, pod, interface, result)

    def delete(self, container: str, pod: Namespace | None, interface: str = "eth0",
               result: dict[str, Any] | None = None) -> None:  # fmt: skip
        for plugin in (*reversed(self.chain), self.first):
            assert self._run("DEL", plugin, container, pod, interface, result) is None

    def collect(self, *valid: tuple[str, str]) -> None:
        listed = [{"containerID": container, "ifname": interface} for container, interface in valid]
        self._run("GC", {**self.ours, "cni.dev/valid-attachments": listed})

    def status(self) -> None:
        self._run("STATUS", self.ours)

    def _run(self, verb: str, plugin: dict[str, Any], container: str = "", pod: Namespace | None = None,
             interface: str = "", result: dict[str, Any] | None = None) -> dict[str, Any] | None:  # fmt: skip
        config = {"cniVersion": self.version, "name": self.network, **plugin}
        if result is not None:
            config["prevResult"] = result
        path = str(pod.path) if pod is not None else ""
        values = (verb, container, path, interface, self.arguments, self.path)
        environment = dict(zip(VARIABLES, values, strict=True))
        binary = source() if plugin["type"] == PLUGIN else Path(self.path) / plugin["type"]
        argv = [str(binary)] if self.entered else self.host.namespace.enter([str(binary)])
        done = subprocess.run(argv, input=json.dumps(config).encode(), capture_output=True, timeout=60, check=False,
                              env=environment | {"PATH": os.environ["PATH"]})  # fmt: skip
        assert not done.stderr, done.stderr
        said = json.loads(done.stdout) if done.stdout.strip() else None
        if done.returncode:
            assert said is not None, "a plugin that fails says why"
            raise PluginError(said)
        return said
